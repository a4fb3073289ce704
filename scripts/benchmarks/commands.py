"""What commands cost: CPU per operation, and throughput, also over TLS and with a replica."""

import contextlib
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time

from node import TARGET, stop, wait_until
from . import attacks
from .runs import COMMANDS, DEFAULT_TESTS, OPERATIONS, benchmark, cpu_table, in_turn, print_head, print_row, spread
from .server import Server


def strings(servers, options):
    tests = [t for t in DEFAULT_TESTS if t[0] in ("get", "set", "incr") and options.wants(t[0])]
    for keys in options.keys or ([200_000] if options.quick else [1_000_000, 5_000_000]):
        print(f"\nstrings, {keys:,} keys of 16 + 32 bytes, and as many counters for INCR")
        for server in servers:
            server.fill_for(tests, keys)
        cpu_table(servers, tests, options, keys, lambda server, rep: None)


def fill_collections(server, keys):
    """What COMMANDS read and write."""
    digits = random.Random(1)
    server.fill((b"SET", b"key:%012d" % n, b"x" * 32) for n in range(0, keys, 2))
    server.fill((b"ZADD", b"bench:zset", b"%d" % n, b"member:%012d" % n) for n in range(0, keys, 10))
    for number, first in ((1, 0), (2, 50)):
        server.fill((b"SADD", b"bench:set:%d" % number, b"member:%d" % n) for n in range(first, first + 100))
    server.fill((b"XADD", b"bench:stream", b"*", b"field", b"%012d" % n) for n in range(10_000))
    server.fill((b"HSET", b"bench:hash", b"field:%d" % n, b"value:%d" % n) for n in range(50))
    server.fill((b"RPUSH", b"bench:numbers", b"%d" % digits.randrange(10**6)) for _ in range(100))
    server.fill((b"SETBIT", b"bench:bits", b"%d" % digits.randrange(8 * 4096), b"1") for _ in range(10_000))
    server.fill((b"PFADD", b"bench:hll", b"%d" % n) for n in range(100_000))
    server.fill((b"GEOADD", b"bench:geo", b"%f" % digits.uniform(13, 17), b"%f" % digits.uniform(35, 39), b"place:%d" % n)
                for n in range(10_000))


def every_test(servers, options):
    keys = (options.keys or [1_000_000])[0]
    tests = [t for t in DEFAULT_TESTS + [(name, cost) for name, (_, cost) in COMMANDS.items()] if options.wants(t[0])]

    def prepare(server, _):
        server.client("FLUSHALL")
        server.settle()
        # An earlier build may not know them all.
        if any(name in COMMANDS for name, _ in tests):
            fill_collections(server, keys)
        # As redis-benchmark's own LRANGE tests: a long list of 32-byte elements.
        server.fill((b"LPUSH", b"benchlist", b"x" * 32) for _ in range(2000))
    print(f"\nevery default test, and more commands, -r {keys}")
    cpu_table(servers, tests, options, keys, prepare)


def workers(servers, options):
    keys = (options.keys or [200_000 if options.quick else 1_000_000])[0]
    tests = [t for t in DEFAULT_TESTS if t[0] in ("get", "set", "incr") and options.wants(t[0])]
    for server in servers:
        server.fill_for(tests, keys)
    print(f"\nthroughput, {options.workers} workers, nothing pinned, {keys:,} keys, client threads: {options.client_threads}")
    print_head("op/s", "keystead/redis")
    for depth in options.depths:
        for test, cost in tests:
            samples = {s.name: [] for s in servers}
            for rep in range(options.reps):
                for server in in_turn(servers, rep):
                    operations = int(OPERATIONS.get(depth, 1_000_000) * 2 / cost / options.divide)
                    samples[server.name].append(
                        benchmark(server, test, operations, depth, keys, None, options.client_threads))
            print_row(test, depth, samples["redis"], samples["keystead"],
                      statistics.median(samples["keystead"]) / statistics.median(samples["redis"]))


@contextlib.contextmanager
def held_back(core):
    """Takes two thirds of the servers' core away, in pieces of a millisecond, so that the server and not the client is
    what a run waits for. Needs the right to go before them (SCHED_FIFO)."""
    child = os.fork()
    if child == 0:
        try:
            if not attacks.first_in_line(4):
                sys.exit("not allowed: a server cannot be held back")
            os.sched_setaffinity(0, {core})
            while True:
                until = time.perf_counter() + 0.001
                while time.perf_counter() < until:
                    pass
                time.sleep(0.0005)
        finally:
            os._exit(1)
    try:
        yield
        if os.waitpid(child, os.WNOHANG)[0]:
            sys.exit("the server was not held back")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def secured(servers, options):
    """Throughput and server CPU of the same runs, pinned: each server on one core, the client on the other. At -P 1 the
    client is what such a run waits for; so the throughput is shown as well with the servers held back alike."""
    keys = (options.keys or [200_000 if options.quick else 1_000_000])[0]
    tests = [t for t in DEFAULT_TESTS if t[0] in ("get", "set") and options.wants(t[0])]
    # Before whatever else the machine does.
    attacks.first_in_line(1)
    for server in servers:
        server.goes_first(2, options.client_core)
        server.fill_for(tests, keys)
    print(f"\nTLS, {keys:,} keys of 16 + 32 bytes: throughput in op/s, CPU in µs/op, throughput of a third of a core")
    print_head("", "ratio")
    for depth in options.depths:
        for test, _ in tests:
            rates = {s.name: [] for s in servers}
            costs = {s.name: [] for s in servers}
            thirds = {s.name: [] for s in servers}
            operations = OPERATIONS.get(depth, 1_000_000) // options.divide
            for rep in range(options.reps):
                for server in in_turn(servers, rep):
                    before = server.cpu_seconds()
                    rates[server.name].append(
                        benchmark(server, test, operations, depth, keys, options.client_core))
                    costs[server.name].append((server.cpu_seconds() - before) / operations * 1e6)
                    with held_back(server.core):
                        thirds[server.name].append(
                            benchmark(server, test, operations // 2, depth, keys, options.client_core))
            middle = statistics.median
            print_row(test, depth, rates["redis"], rates["keystead"],
                      middle(rates["keystead"]) / middle(rates["redis"]))
            print_row(test, depth, costs["redis"], costs["keystead"],
                      middle(costs["redis"]) / max(middle(costs["keystead"]), 1e-9))
            print_row(test, depth, thirds["redis"], thirds["keystead"],
                      middle(thirds["keystead"]) / middle(thirds["redis"]))


def handover(servers, options):
    """Throughput and CPU with `reply-after-handover` and without, one Keystead replica that follows on the client's core."""
    primary, keys = servers[1], 200_000
    folder = tempfile.mkdtemp(prefix="bench-", dir=TARGET)
    args = ["--save", "", "--io-threads", "1", "--replicaof", f"127.0.0.1 {primary.port}"]
    replica = Server("replica", options.program, folder, args, options.client_core)
    try:
        wait_until("the replica is in step", lambda: "state=online" in primary.client.info().get("slave0", ""), 60)
        print(f"\nSET, one replica{'':<12}{'op/s min med max':<36}CPU, µs/op")
        for depth in options.depths:
            samples = {how: ([], []) for how in ("yes", "no")}
            operations = int(OPERATIONS.get(depth, 1_000_000) / options.divide)
            for rep in range(options.reps):
                for how in in_turn(samples, rep):
                    primary.client("CONFIG", "SET", "reply-after-handover", how)
                    before = primary.cpu_seconds()
                    samples[how][0].append(benchmark(primary, "set", operations, depth, keys, options.client_core))
                    samples[how][1].append((primary.cpu_seconds() - before) / operations * 1e6)
            for how, (rates, costs) in samples.items():
                print(f"-P {depth:<4}after handover: {how:<6}{spread(rates, 0):<36}{spread(costs)}", flush=True)
            ratio = statistics.median(samples["yes"][0]) / statistics.median(samples["no"][0])
            print(f"-P {depth:<4}throughput with against without: {ratio:.3f}", flush=True)
    finally:
        stop(replica.process)
        shutil.rmtree(folder, ignore_errors=True)

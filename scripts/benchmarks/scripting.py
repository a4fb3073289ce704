"""What scripts cost, on one worker and on two, and what they cost others."""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from node import Client, TARGET, encode, stop, tool
from .runs import in_turn, print_head, print_row, spread
from .server import Server

# Moves a job from one list to another, with its lock and its state, as queues do: 9 calls over 6 keys.
QUEUE = """
local id = redis.call('RPOPLPUSH', KEYS[1], KEYS[2])
if not id then
    id = redis.call('INCR', KEYS[3])
    redis.call('LPUSH', KEYS[1], id)
end
redis.call('SET', KEYS[4], ARGV[1], 'PX', 30000)
redis.call('HSET', KEYS[5], 'processedOn', ARGV[2], 'ats', id)
redis.call('HINCRBY', KEYS[5], 'atm', 1)
redis.call('ZADD', KEYS[6], ARGV[2], id)
redis.call('ZREMRANGEBYRANK', KEYS[6], 0, -100)
redis.call('LTRIM', KEYS[2], 0, 50)
return {id, redis.call('HGETALL', KEYS[5])}
"""


# By name: the script, its number of keys, and its arguments. One tag keeps all keys of a call in one slot.
SCRIPTS = {
    "empty": ("return 1", 0, []),
    "get": ("return redis.call('GET', KEYS[1])", 1, ["{__rand_int__}"]),
    "set": ("return redis.call('SET', KEYS[1], ARGV[1])", 1, ["{__rand_int__}", "x" * 32]),
    "ten calls": ("for i = 1, 5 do redis.call('SET', KEYS[1], ARGV[1]) redis.call('GET', KEYS[1]) end return 1", 1,
                  ["{__rand_int__}", "x" * 32]),
    "hundred calls": ("for i = 1, 50 do redis.call('SET', KEYS[1], ARGV[1]) redis.call('GET', KEYS[1]) end return 1", 1,
                      ["{__rand_int__}", "x" * 32]),
    "queue": (QUEUE, 6, [f"{{q}}:{part}" for part in ("wait", "active", "id", "lock", "job", "marker")]
              + ["token", "1700000000000"]),
}


def run_script(server, name, operations, depth, core, tag=None):
    """Runs one of SCRIPTS by EVALSHA and returns its operations per second."""
    code, keys, args = SCRIPTS[name]
    sha = server.client("SCRIPT", "LOAD", code)
    if tag is not None:
        args = [arg.replace("{q}", "{%s}" % tag).replace("{__rand_int__}", "{%s}" % tag) for arg in args]
    command = [tool("redis-benchmark"), "-p", str(server.port), "-c", "50", "-n", str(operations), "-P", str(depth),
               "-r", "100000", "--csv", "EVALSHA", sha, str(keys), *args]
    pin = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=pin)


def rate_of(process):
    out, _ = process.communicate()
    rates = re.findall(r'^"EVALSHA[^"]*","([0-9.]+)"', out, re.M)
    if process.returncode != 0 or not rates or "ERR" in out:
        sys.exit(f"redis-benchmark EVALSHA failed:\n{out}")
    return float(rates[-1])


def scripts(servers, options):
    print("\nEVALSHA, one worker")
    print_head("µs/op", "redis/keystead")
    for depth in options.depths:
        for name in filter(options.wants, SCRIPTS):
            samples = {s.name: [] for s in servers}
            operations = max(2000, int({1: 60_000}.get(depth, 200_000) / {"ten calls": 3, "queue": 3, "hundred calls": 30}.get(name, 1)
                                       / options.divide))
            for rep in range(options.reps):
                for server in in_turn(servers, rep):
                    server.client("FLUSHALL")
                    before = server.cpu_seconds()
                    rate_of(run_script(server, name, operations, depth, options.client_core))
                    samples[server.name].append((server.cpu_seconds() - before) / operations * 1e6)
            ratio = statistics.median(samples["redis"]) / max(statistics.median(samples["keystead"]), 1e-9)
            print_row(name, depth, samples["redis"], samples["keystead"], ratio)
    if options.only is None:
        two_workers(options)
        beside_a_long_script(options)


def two_workers(options):
    """Keys in different slots (a queue has its own, and eight clients), on one worker and on two; nothing is pinned. The
    clients take their share of the same cores: the lighter a script, the more of the second core is theirs already. So
    what a call costs the server is shown as well: two cores of their own would do twice as many calls as one if a call
    cost two workers what it costs one."""
    print("\ncalls per second on one worker, on two, the ratio (min, median, max); CPU in µs a call on one, on two, and what "
          "two cores of their own make of it")
    folder = tempfile.mkdtemp(prefix="bench-", dir=TARGET)
    pair = [Server(f"keystead-{n}", options.program, folder, ["--save", "", "--io-threads", str(n)], None) for n in (1, 2)]
    try:
        for name in ("set", "ten calls", "hundred calls", "queue"):
            rates, costs = ({server.name: [] for server in pair} for _ in range(2))
            # Not fewer for a quick look: redis-benchmark looks at the time every quarter of a second.
            operations = {"set": 800_000, "ten calls": 400_000, "hundred calls": 60_000, "queue": 300_000}[name]
            for _ in range(options.reps):
                for server in pair:
                    tags = "abcdefgh" if name == "queue" else [None]
                    before = server.cpu_seconds()
                    running = [run_script(server, name, operations // len(tags), 16, None, tag) for tag in tags]
                    rates[server.name].append(sum(rate_of(process) for process in running))
                    costs[server.name].append((server.cpu_seconds() - before) / operations * 1e6)
            one, two = (rates[server.name] for server in pair)
            ratios = [high / low for low, high in zip(one, two)]
            alone, beside = (statistics.median(costs[server.name]) for server in pair)
            print(f"{name:<14}{statistics.median(one):>12,.0f}{statistics.median(two):>12,.0f}  {spread(ratios)}"
                  f"{alone:>10.2f}{beside:>8.2f}{2 * alone / beside:>7.2f}", flush=True)
    finally:
        for server in pair:
            stop(server.process)
        shutil.rmtree(folder, ignore_errors=True)


def beside_a_long_script(options):
    """The slowest thousandth of GETs while a script in another slot runs for five seconds, and while none does."""
    folder = tempfile.mkdtemp(prefix="bench-", dir=TARGET)
    server = Server("keystead-long", options.program, folder, ["--save", "", "--io-threads", "2"], None)
    try:
        server.client("SET", "{other}", "x")
        clients = [Client(server.port, 60) for _ in range(8)]

        def slowest(seconds):
            took, until = [], time.monotonic() + seconds
            while time.monotonic() < until:
                for client in clients:
                    began = time.monotonic()
                    client("GET", "{other}")
                    took.append(time.monotonic() - began)
            took.sort()
            return len(took), took[len(took) // 2] * 1e6, took[int(len(took) * 0.999)] * 1e6, took[-1] * 1e6
        long = "local n = redis.call('GET', KEYS[1]) local t = redis.call('TIME') local till = t[1] + t[2] / 1e6 + 5 " \
               "repeat for i = 1, 100000 do end t = redis.call('TIME') until t[1] + t[2] / 1e6 > till return 'done'"
        print(f"\n{'GETs':<22}{'number':>9}{'median':>10}{'p99.9':>10}{'most, µs':>12}")
        for what in ("idle", "beside a long script"):
            if what != "idle":
                hanging = Client(server.port, 60)
                # A script that the server does not know takes all locks.
                sha = server.client("SCRIPT", "LOAD", long)
                hanging.socket.sendall(encode(("EVALSHA", sha, 1, "{long}")))
            number, median, late, most = slowest(4)
            print(f"{what:<22}{number:>9,}{median:>10.0f}{late:>10.0f}{most:>12.0f}", flush=True)
        if hanging.read() != "done":
            sys.exit("the long script did not end")
    finally:
        stop(server.process)
        shutil.rmtree(folder, ignore_errors=True)

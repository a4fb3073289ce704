"""Runs of redis-benchmark against several servers in turn, and the tables of their figures."""

import os
import re
import statistics
import subprocess
import sys

from node import tool

# The default tests of redis-benchmark in their order, which matters: what one pushes, a later one
# pops. The cost says how many operations fit a repetition (1 is a GET). LRANGE runs by its command,
# because redis-benchmark would push a list of its own first.
DEFAULT_TESTS = [
    ("ping_inline", 1), ("ping_mbulk", 1), ("set", 1), ("get", 1), ("incr", 1),
    ("lpush", 1), ("rpush", 1), ("lpop", 1), ("rpop", 1), ("sadd", 1), ("hset", 1), ("spop", 1),
    ("zadd", 4), ("zpopmin", 1),
    ("lrange_100", 8), ("lrange_300", 20), ("lrange_500", 30), ("lrange_600", 35), ("mset", 6),
]


# Further commands, on the data of `fill_collections`; redis-benchmark puts 12 digits below -r for RAND.
RAND = "__rand_int__"


COMMANDS = {
    "zadd_big": (("ZADD", "bench:zset", RAND, f"member:{RAND}"), 4),
    "zrange_100": (("ZRANGE", "bench:zset", "5000", "5099"), 10),
    "zrank": (("ZRANK", "bench:zset", f"member:{RAND}"), 3),
    "sinter": (("SINTER", "bench:set:1", "bench:set:2"), 12),
    "sunion": (("SUNION", "bench:set:1", "bench:set:2"), 25),
    "lindex": (("LINDEX", "benchlist", "1000"), 2),
    "xadd": (("XADD", "bench:stream", "MAXLEN", "~", "100000", "*", "field", RAND), 2),
    "xrange_100": (("XRANGE", "bench:stream", "-", "+", "COUNT", "100"), 30),
    "hgetall_50": (("HGETALL", "bench:hash"), 8),
    "hmget_10": (("HMGET", "bench:hash", *(f"field:{n}" for n in range(0, 50, 5))), 3),
    "mget_10": (("MGET", *[f"key:{RAND}"] * 10), 4),
    "sort_100": (("SORT", "bench:numbers"), 30),
    "bitcount_4k": (("BITCOUNT", "bench:bits"), 3),
    "pfadd": (("PFADD", "bench:hll", RAND), 2),
    "pfcount": (("PFCOUNT", "bench:hll"), 2),
    "geosearch": (("GEOSEARCH", "bench:geo", "FROMLONLAT", "15", "37", "BYRADIUS", "50", "km", "COUNT", "10"), 30),
    "expire": (("EXPIRE", f"key:{RAND}", "1000"), 1),
    "scan": (("SCAN", "0", "COUNT", "10"), 3),
}


OPERATIONS = {1: 150_000, 16: 1_600_000, 64: 3_200_000}


def benchmark(server, test, operations, depth, keys, core, threads=1):
    """Runs one test and returns its operations per second."""
    command = [tool("redis-benchmark"), *server.address, "-c", "50", "-n", str(operations),
               "-P", str(depth), "-r", str(keys), "--csv", "-d", "32"]
    if threads > 1:
        command += ["--threads", str(threads)]
    if test in COMMANDS:
        command += COMMANDS[test][0]
    elif test.startswith("lrange_"):
        command += ["LRANGE", "benchlist", "0", str(int(test[7:]) - 1)]
    else:
        command += ["-t", test]
    pin = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
    run = subprocess.run(command, capture_output=True, text=True, preexec_fn=pin)
    rates = re.findall(r'^"[^"]+","([0-9.]+)"', run.stdout, re.M)
    if run.returncode != 0 or not rates or "error" in run.stderr.lower():
        sys.exit(f"redis-benchmark -t {test} on {server.name} failed:\n{run.stdout}{run.stderr}")
    return float(rates[-1])


def microseconds(server, test, operations, depth, keys, core):
    """Server CPU per operation of one repetition."""
    before = server.cpu_seconds()
    benchmark(server, test, operations, depth, keys, core)
    return (server.cpu_seconds() - before) / operations * 1e6


def spread(values, digits=2):
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{low:.{digits}f} {mid:.{digits}f} {high:.{digits}f}"


def print_head(unit, ratio):
    print(f"\n{'test':<14}{'P':>3}   {'redis ' + unit + ' min med max':<28}{'keystead':<28}{ratio}", flush=True)


def print_row(test, depth, redis, keystead, ratio):
    digits = 2 if statistics.median(redis) < 1000 else 0
    print(f"{test:<14}{depth:>3}   {spread(redis, digits):<28}{spread(keystead, digits):<28}{ratio:.2f}", flush=True)


def in_turn(things, rep):
    """In the order given, and the other way round in every second repetition."""
    things = list(things)
    return things if rep % 2 == 0 else things[::-1]


def cpu_table(servers, tests, options, keys, prepare):
    """Interleaved repetitions of every test at every depth."""
    print_head("µs/op", "redis/keystead")
    for depth in options.depths:
        samples = {(s.name, t): [] for s in servers for t, _ in tests}
        for rep in range(options.reps):
            for server in in_turn(servers, rep):
                prepare(server, rep)
                for test, cost in tests:
                    operations = max(2000, int(OPERATIONS.get(depth, 1_000_000) / cost / options.divide))
                    samples[server.name, test].append(
                        microseconds(server, test, operations, depth, keys, options.client_core))
        for test, _ in tests:
            redis, keystead = samples["redis", test], samples["keystead", test]
            ratio = statistics.median(redis) / max(statistics.median(keystead), 1e-9)
            print_row(test, depth, redis, keystead, ratio)

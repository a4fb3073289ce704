"""What the disk costs: snapshots, loads, rewrites, and `appendfsync always` by what an fsync costs."""

import os
import re
import statistics
import subprocess
import sys
import time

from node import Client, ReplyError, start, wait_until
from .runs import benchmark, in_turn, spread


def timed(server, begin, status):
    """Seconds from a command until INFO says that what it began is over."""
    began = time.monotonic()
    server.client(*begin)
    while server.client.info()[status] == "1":
        time.sleep(0.005)
    return time.monotonic() - began


def load_seconds(server, program, args):
    """Ends a server, starts it on the same files, and returns what its log says that loading took."""
    def ends():
        try:
            server.client("SHUTDOWN", "NOSAVE")
        except ReplyError:
            # Its first append-only file is not complete.
            return False
        except (ConnectionError, OSError):
            return True
        return True
    wait_until(f"{server.name} ends", ends, 120)
    server.process.wait()
    log = os.path.join(server.folder, server.name, "server.log")
    seen = os.path.getsize(log)
    server.process = start(program, server.port, os.path.join(server.folder, server.name), args, None)
    server.client = Client(server.port, 600)
    with open(log) as f:
        f.seek(seen)
        return float(re.findall(r"DB loaded from (?:disk|append only file): ([0-9.]+) seconds", f.read())[-1])


def slowest_write(server, seconds, keys):
    """The p99.9 of single writes, one after the other, in milliseconds."""
    times, end, i = [], time.monotonic() + seconds, 0
    while time.monotonic() < end:
        i += 7919
        began = time.monotonic()
        server.client("SET", b"key:%012d" % (i % keys), b"y" * 32)
        times.append(time.monotonic() - began)
    times.sort()
    return times[int(len(times) * 0.999)] * 1000


def persistence(servers, options):
    """What the disk costs. Nothing is pinned: a server may use every core for it."""
    keys = (options.keys or [300_000 if options.quick else 3_000_000])[0]
    print(f"\n{keys:,} strings of 16 + 32 bytes, a hash and a sorted set of 200,000 each")
    for server in servers:
        server.fill_strings(keys)
        for first in range(0, 200_000, 100):
            part = range(first, first + 100)
            server.client("HSET", "big:hash", *(word for n in part for word in (f"field:{n}", n)))
            server.client("ZADD", "big:zset", *(word for n in part for word in (n, f"member:{n}")))
    rows = {}

    def note(what, server, value):
        rows.setdefault(what, {}).setdefault(server.name, []).append(value)
    for rep in range(options.reps):
        for server in in_turn(servers, rep):
            note("p99.9 of a write, idle, ms", server, slowest_write(server, 2, keys))
            note("BGSAVE, s", server, timed(server, ("BGSAVE",), "rdb_bgsave_in_progress"))
            server.client("BGSAVE")
            note("p99.9 of a write, saving, ms", server, slowest_write(server, 1, keys))
            wait_until("the save ends", lambda: server.client.info()["rdb_bgsave_in_progress"] == "0", 120)
            began = time.monotonic()
            server.client("SAVE")
            note("SAVE, s", server, time.monotonic() - began)
            note("load of the data file, s", server, load_seconds(server, server.program, server.args))
            server.client("CONFIG", "SET", "appendonly", "yes")
            wait_until("the first base is there",
                       lambda: server.client.info()["aof_rewrite_in_progress"] == "0"
                       and server.client.info()["aof_rewrite_scheduled"] == "0", 120)
            note("BGREWRITEAOF, s", server, timed(server, ("BGREWRITEAOF",), "aof_rewrite_in_progress"))
            note("load of the append-only file, s", server,
                 load_seconds(server, server.program, [*server.args, "--appendonly", "yes"]))
            operations = 20_000 // options.divide
            server.client("CONFIG", "SET", "appendfsync", "always")
            note("SET always, -c 50, op/s", server, benchmark(server, "set", operations, 1, keys, None))
            server.client("CONFIG", "SET", "appendfsync", "everysec")
            operations = 2_000_000 // options.divide
            note("SET everysec, -P 16, op/s", server, benchmark(server, "set", operations, 16, keys, None))
            server.client("CONFIG", "SET", "appendonly", "no")
            note("SET without AOF, -P 16, op/s", server, benchmark(server, "set", operations, 16, keys, None))
    print(f"\n{'what':<34}{'redis min med max':<28}{'keystead':<28}redis/keystead")
    for what, values in rows.items():
        digits = 0 if "op/s" in what else 3
        ratio = statistics.median(values["redis"]) / statistics.median(values["keystead"])
        print(f"{what:<34}{spread(values['redis'], digits):<28}{spread(values['keystead'], digits):<28}{ratio:.2f}", flush=True)
    for server in servers:
        with_log, without = (statistics.median(rows[f"SET {how}, -P 16, op/s"][server.name])
                             for how in ("everysec", "without AOF"))
        print(f"{server.name:<10}everysec against no AOF: {with_log / without:.3f}", flush=True)


# Laid over a server (LD_PRELOAD): an fsync takes as many microseconds as the file says, and does nothing else.
FSYNC = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static volatile int *cost;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("BENCH_FSYNC_COST");
    int file = path ? open(path, O_RDONLY) : -1;
    void *at = file < 0 ? MAP_FAILED : mmap(0, sizeof(int), PROT_READ, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) abort();
    cost = at;
}

static int take(void) {
    struct timespec pause = { *cost / 1000000, *cost % 1000000 * 1000L };
    if (*cost > 0) nanosleep(&pause, 0);
    return 0;
}

int fsync(int file) { (void)file; return take(); }
int fdatasync(int file) { (void)file; return take(); }
"""


# Microseconds: nothing, a good disk, a usual one, one of a cloud, a slow one.
FSYNC_COSTS = [0, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]


def lay_over(folder):
    """Has the servers that are started from now on take their fsyncs from FSYNC. Returns the file that says the cost."""
    source, library, cost = (os.path.join(folder, name) for name in ("fsync.c", "fsync.so", "cost"))
    with open(source, "w") as f:
        f.write(FSYNC)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    with open(cost, "wb") as f:
        f.write(bytes(4))
    os.environ.update(LD_PRELOAD=library, BENCH_FSYNC_COST=cost)
    return cost


def always(servers, options):
    """How a group commit does, whatever the disk. Nothing is pinned."""
    for server in servers:
        server.client("CONFIG", "SET", "appendfsync", "always")
        server.client("CONFIG", "SET", "appendonly", "yes")
        wait_until("the first base is there", lambda: server.client.info()["aof_rewrite_in_progress"] == "0"
                   and server.client.info()["aof_rewrite_scheduled"] == "0", 120)
    print(f"\nSET, -c 50, -P 1, `appendfsync always`; CPU is the server's, µs/op\n{'fsync, µs':>9}   "
          f"{'redis op/s min med max':<28}{'keystead':<28}{'keystead/redis':<16}{'CPU redis':<12}keystead")
    for cost in FSYNC_COSTS:
        with open(options.fsync_cost, "r+b") as f:
            f.write(cost.to_bytes(4, sys.byteorder))
        # About two seconds each.
        operations = int(min(100_000, 100_000_000 / max(cost, 1)) / (2 if options.divide > 1 else 1))
        rates, cpu = ({s.name: [] for s in servers} for _ in range(2))
        for rep in range(options.reps):
            for server in in_turn(servers, rep):
                before = server.cpu_seconds()
                rates[server.name].append(benchmark(server, "set", operations, 1, 100_000, None))
                cpu[server.name].append((server.cpu_seconds() - before) / operations * 1e6)
        ratio = statistics.median(rates["keystead"]) / statistics.median(rates["redis"])
        print(f"{cost:>9}   {spread(rates['redis'], 0):<28}{spread(rates['keystead'], 0):<28}{ratio:<16.2f}"
              + "".join(f"{statistics.median(cpu[s.name]):<12.1f}" for s in servers), flush=True)

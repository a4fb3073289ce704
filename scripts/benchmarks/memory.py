"""What data take in memory, alone and while they are saved; what a cache of a given size hits."""

import itertools
import random
import subprocess
import time

from node import encode, stop, tool
from .server import Server


def pairs(first, last):
    """Fields and values of a large hash, in commands of a hundred."""
    for n in range(first, last, 100):
        yield [word for at in range(n, n + 100) for word in (b"field:%d" % at, b"value:%d" % at)]


# Bytes resident of each: what is counted, how many, and the commands that make so many.
ELEMENTS = {
    "hash of ten fields of 6 + 6 bytes": lambda n: (
        (b"HSET", b"h:%d" % key, *(word for f in range(10) for word in (b"field%d" % f, b"value%d" % f)))
        for key in range(n // 5)),
    "field of a large hash": lambda n: ((b"HSET", b"k", *words) for words in pairs(0, n)),
    "member of a large sorted set": lambda n: ((b"ZADD", b"k", b"%d" % at, b"member:%d" % at) for at in range(n)),
    "member of a large set": lambda n: ((b"SADD", b"k", b"member:%d" % at) for at in range(n)),
    "element of a long list": lambda n: ((b"RPUSH", b"k", b"element:%d" % at) for at in range(n)),
}


def element_table(servers, options):
    elements = 200_000 if options.quick else 1_000_000
    for what, commands in ELEMENTS.items():
        counted = elements // 5 if "ten fields" in what else elements
        figures = []
        for server in servers:
            process = Server(server.name, server.program, server.folder + "/elements", server.args, None)
            try:
                empty = process.resident()
                process.fill(commands(elements))
                figures.append(f"{server.name} {(process.resident() - empty) / counted:6.1f}")
            finally:
                stop(process.process)
        print(f"{what:<36}{'   '.join(figures)} bytes", flush=True)


def memory(servers, options):
    print("\nbytes resident of each")
    element_table(servers, options)
    keys = (options.keys or [500_000 if options.quick else 5_000_000])[0]
    print(f"\n{keys:,} strings of 16 + 32 bytes")
    for server in servers:
        empty = server.resident()
        server.fill_strings(keys)
        print(f"{server.name:<10}{(server.resident() - empty) / keys:8.1f} bytes resident per key", flush=True)
    print("\nBGSAVE under write load (SET -P 16 on the same keys)")
    for server in servers:
        before = server.memory_with_children()
        load = subprocess.Popen(
            [tool("redis-benchmark"), "-p", str(server.port), "-c", "20", "-n", "1000000000", "-P", "16",
             "-r", str(keys), "-d", "32", "-q", "-t", "set"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            loaded = server.memory_with_children()
            began, peak, slowest = time.monotonic(), loaded, 0.0
            server.client("BGSAVE")
            while server.client.info()["rdb_bgsave_in_progress"] == "1":
                peak = max(peak, server.memory_with_children())
                asked = time.monotonic()
                server.client("PING")
                slowest = max(slowest, time.monotonic() - asked)
            took = time.monotonic() - began
        finally:
            stop(load)
        status = server.client.info().get("rdb_last_bgsave_status")
        print(f"{server.name:<10}{before >> 20:6} MiB before, {peak >> 20} MiB at most: "
              f"+{(peak / loaded - 1) * 100:.1f} %, {took:.1f} s, slowest PING {slowest * 1000:.0f} ms, {status}", flush=True)


HITS_KEYS, HITS_READS, HITS_MEMORY = 100_000, 1_000_000, 8 << 20


def hit_ratio(server, trace):
    """A cache in front of something slow: what GET does not find is SET. Counted once the cache is full."""
    client, value, batch = server.client, b"x" * 200, 50
    hits = counted = 0
    for first in range(0, len(trace), batch):
        keys = [b"key:%d" % n for n in trace[first:first + batch]]
        client.socket.sendall(b"".join(encode((b"GET", key)) for key in keys))
        missing = [key for key in keys if client.read() is None]
        client.socket.sendall(b"".join(encode((b"SET", key, value)) for key in missing))
        server.drain(len(missing))
        if first >= len(trace) // 2:
            counted += len(keys)
            hits += len(keys) - len(missing)
    return hits / counted


def hits(servers, options):
    reads = HITS_READS // options.divide
    print(f"\n{reads:,} reads of {HITS_KEYS:,} keys, values of 200 bytes, maxmemory {HITS_MEMORY >> 20} MiB above the empty "
          f"server's\n{'policy':<14}{'exponent':>9}" + "".join(f"{s.name:>12}{'keys':>9}" for s in servers))
    for policy, exponent in itertools.product(("allkeys-lru", "allkeys-lfu"), (0.7, 0.9, 1.1)):
        draw = random.Random(7)
        weights = list(itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(HITS_KEYS)))
        names = draw.sample(range(HITS_KEYS), HITS_KEYS)
        trace = [names[rank] for rank in draw.choices(range(HITS_KEYS), cum_weights=weights, k=reads)]
        row = f"{policy:<14}{exponent:>9}"
        for server in servers:
            for words in (("CONFIG", "SET", "maxmemory", "0"), ("FLUSHALL",), ("CONFIG", "SET", "maxmemory-policy", policy)):
                server.client(*words)
            server.settle()
            limit = int(server.client.info()["used_memory"]) + HITS_MEMORY
            server.client("CONFIG", "SET", "maxmemory", limit)
            row += f"{hit_ratio(server, trace):12.4f}{server.client('DBSIZE'):>9,}"
        print(row, flush=True)

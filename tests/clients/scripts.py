"""What applications do with scripts: locks over several nodes, limits of rates, queues that move jobs between lists and
sets; by several threads at once, on a node and on a cluster.

    python tests/clients/scripts.py

    KEYSTEAD_SERVER   the server (the release binary unless given)
"""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import limits
import limits.storage
import limits.strategies
import pottery
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

from rig import Checks, Cluster, Rig, wait_until

THREADS = 6


def at_once(work, times):
    """Runs `work(i)` in several threads; the results in order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(times)))


def redlock_excludes(masters):
    inside, most, entered = [0], [0], [0]
    guard = threading.Lock()

    def enter(_):
        lock = pottery.Redlock(key="critical", masters=masters, auto_release_time=10)
        assert lock.acquire(timeout=30)
        with guard:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            entered[0] += 1
        time.sleep(0.002)
        with guard:
            inside[0] -= 1
        lock.release()
    at_once(enter, 30)
    assert (most[0], entered[0]) == (1, 30), (most, entered)


def redlock_survives_a_node(rig, ports, masters):
    held = pottery.Redlock(key="held", masters=masters, auto_release_time=4)
    assert held.acquire(timeout=10)
    rig.kill(ports[2])
    other = pottery.Redlock(key="held", masters=masters, auto_release_time=5)
    assert not other.acquire(blocking=False)
    held.extend()
    assert held.locked() > 0
    # It ends by itself, also where nobody releases it.
    assert other.acquire(timeout=20)
    try:
        held.release()
        raise AssertionError("it is another one's by now")
    except pottery.ReleaseUnlockedLock:
        pass
    other.release()


def windows(storage):
    """The limiter of the `limits` package, by scripts of its own; many threads spend one budget."""
    item = limits.RateLimitItemPerSecond(20, 2)
    for strategy in (limits.strategies.MovingWindowRateLimiter, limits.strategies.SlidingWindowCounterRateLimiter):
        limiter = strategy(storage)
        name = strategy.__name__
        assert sum(at_once(lambda _: limiter.hit(item, name), 60)) == 20, name
        assert limiter.get_window_stats(item, name).remaining == 0
        wait_until("the window has moved on", lambda: limiter.hit(item, name), 10)


# Tokens flow in with the server's own time, which a script may ask for.
TOKEN_BUCKET = """
local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local now = redis.call('TIME')
now = now[1] + now[2] / 1000000
local rate, capacity, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tokens = tonumber(bucket[1]) or capacity
tokens = math.min(capacity, tokens + (now - (tonumber(bucket[2]) or now)) * rate)
local allowed = tokens >= wanted
if allowed then tokens = tokens - wanted end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(1000 * capacity / rate) + 1000)
return {allowed and 1 or 0, tostring(tokens)}
"""


def token_bucket(r):
    r.delete("{bucket}")
    take = r.register_script(TOKEN_BUCKET)
    began = time.monotonic()
    spent = sum(taken for taken, _ in at_once(lambda _: take(keys=["{bucket}"], args=[50, 20, 1]), 200))
    passed = time.monotonic() - began
    assert 20 <= spent <= 20 + 50 * passed + 1, (spent, passed)
    assert r.pttl("{bucket}") > 0
    wait_until("tokens flow in", lambda: take(keys=["{bucket}"], args=[50, 20, 10])[0] == 1, 10)


# A job goes from the list to the set of those in work, with one more attempt noted in it.
RESERVE = """
local job = redis.call('LPOP', KEYS[1])
if not job then return false end
local reserved = cjson.decode(job)
reserved['attempts'] = reserved['attempts'] + 1
reserved = cjson.encode(reserved)
redis.call('ZADD', KEYS[2], ARGV[1], reserved)
redis.call('LPOP', KEYS[3])
return {job, reserved}
"""

# What is due goes from a sorted set to the list, in one call for a hundred each.
MIGRATE = """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
if next(due) == nil then return 0 end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #due - 1)
for i = 1, #due, 100 do
    redis.call('RPUSH', KEYS[2], unpack(due, i, math.min(i + 99, #due)))
end
for _ = 1, #due do redis.call('RPUSH', KEYS[3], 1) end
return #due
"""


def reserving_queue(r):
    """In the manner of Laravel: ready, delayed and reserved jobs of one queue, and a list that wakes workers up."""
    ready, reserved, delayed, notify = keys = ["{q}:ready", "{q}:reserved", "{q}:delayed", "{q}:notify"]
    r.delete(*keys)
    reserve, migrate = r.register_script(RESERVE), r.register_script(MIGRATE)
    jobs = [json.dumps({"id": i, "attempts": 0, "nested": {"list": [], "text": "ü\n"}}) for i in range(400)]
    r.zadd(delayed, {job: i for i, job in enumerate(jobs)})
    moved, taken = [], []

    def work(i):
        if i % 7 == 0:
            moved.append(migrate(keys=[delayed, ready, notify], args=[i]))
        job = reserve(keys=[ready, reserved, notify], args=[time.time() + 60])
        if job:
            taken.append(json.loads(job[1]))
            assert json.loads(job[0])["attempts"] == 0 and taken[-1]["attempts"] == 1
    at_once(work, 1200)
    while migrate(keys=[delayed, ready, notify], args=[1000]) or r.llen(ready):
        work(1)
    assert sorted(job["id"] for job in taken) == list(range(400))
    assert sum(moved) <= 400 and r.zcard(delayed) == 0 and r.zcard(reserved) == 400
    assert r.llen(notify) == r.llen(ready) == 0


# The first of several lists that has something, in their order of weight, and the claim on it, in one go.
FETCH = """
for i = 1, #KEYS - 2 do
    local job = redis.call('RPOP', KEYS[i])
    if job then
        redis.call('SADD', KEYS[#KEYS - 1], job)
        redis.call('HINCRBY', KEYS[#KEYS], KEYS[i], 1)
        return {KEYS[i], job}
    end
end
return false
"""

# Retries that are due go back to the list that each names; those beyond their last try go to the dead.
ENQUEUE_DUE = """
local moved = {}
while true do
    local due = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, 10)
    if #due == 0 then return moved end
    for _, text in ipairs(due) do
        redis.call('ZREM', KEYS[1], text)
        local job = cjson.decode(text)
        if job.tries > 2 then
            redis.call('ZADD', KEYS[2], ARGV[1], text)
        else
            -- A list that no key declares: as its authors wrote it before there were clusters.
            redis.call('LPUSH', ARGV[2] .. job.queue, text)
        end
        moved[#moved + 1] = job.id
    end
end
"""


def weighted_queues(r):
    """In the manner of Sidekiq: several lists are popped in order, and due retries go to lists that they name."""
    prefix = "{s}:queue:"
    queues = [prefix + name for name in ("critical", "default", "low")]
    claimed, counts, retries, dead = "{s}:claimed", "{s}:counts", "{s}:retries", "{s}:dead"
    r.delete(*queues, claimed, counts, retries, dead)
    fetch, enqueue_due = r.register_script(FETCH), r.register_script(ENQUEUE_DUE)
    jobs = [{"id": i, "queue": ("critical", "default", "low")[i % 3], "tries": i % 4} for i in range(400)]
    r.zadd(retries, {json.dumps(job): job["id"] for job in jobs})
    moved, fetched = [], []

    def work(i):
        if i % 5 == 0:
            moved.extend(enqueue_due(keys=[retries, dead], args=[i, prefix]))
        found = fetch(keys=[*queues, claimed, counts])
        if found:
            fetched.append(json.loads(found[1]))
            assert found[0] == prefix + fetched[-1]["queue"]
    at_once(work, 800)
    while r.zcard(retries) or any(r.llen(queue) for queue in queues):
        moved.extend(enqueue_due(keys=[retries, dead], args=[1000, prefix]))
        work(1)
    assert sorted(moved) == list(range(400))
    alive = [job["id"] for job in jobs if job["tries"] <= 2]
    assert sorted(job["id"] for job in fetched) == alive
    assert r.zcard(dead) == 100 and r.scard(claimed) == 300
    assert sum(map(int, r.hvals(counts))) == 300


def main():
    rig, checks = Rig(), Checks("scripts")
    print(", ".join(f"{name} {version(name)}" for name in ("pottery", "limits", "redis")), flush=True)
    try:
        port = rig.node("--io-threads", "2")
        cluster = Cluster(rig)
        ports = [rig.node() for _ in range(3)]
        # A node that is gone is not asked twice: the lock's time runs.
        masters = {redis.Redis(port=p, socket_timeout=1, retry=Retry(NoBackoff(), 0)) for p in ports}
        checks.run("a Redlock excludes", redlock_excludes, masters)
        checks.run("a Redlock survives a node", redlock_survives_a_node, rig, ports, masters)
        nodes = [ClusterNode("127.0.0.1", p) for p in cluster.ports]
        for where, r in (("a node", redis.Redis(port=port, decode_responses=True)),
                         ("a cluster", RedisCluster(startup_nodes=nodes, decode_responses=True))):
            for check in (token_bucket, reserving_queue, weighted_queues):
                checks.run(f"{check.__name__.replace('_', ' ')} on {where}", check, r)
        checks.run("windows on a node", windows, limits.storage.storage_from_string(f"redis://127.0.0.1:{port}"))
        all_nodes = ",".join(f"127.0.0.1:{p}" for p in cluster.ports)
        checks.run("windows on a cluster", windows, limits.storage.storage_from_string(f"redis+cluster://{all_nodes}"))
    finally:
        rig.close(keep=checks.failed > 0)
    sys.exit(0 if checks.end() else 1)


if __name__ == "__main__":
    main()

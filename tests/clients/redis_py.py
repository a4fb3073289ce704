"""redis-py against the server under test: a plain node in both protocols, sentinels that switch, a cluster that loses a
primary, and a node, a cluster and sentinels over TLS with certificates of clients and with users.

    python tests/clients/redis_py.py

    KEYSTEAD_SERVER   the server (the release binary unless given)
"""

import sys
import threading
import time

from rig import (NODE_TIMEOUT_MS, PASSWORD, PRIMARY_NAME, Checks, Client, Cluster, ReplyError, Rig, Secured, Watched,
                 wait_until)

import redis
import redis.sentinel
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry


def plain_node(rig, protocol):
    return redis.Redis(port=rig.node(), protocol=protocol, decode_responses=True)


def check_types(r):
    r.flushall()
    assert r.set("k", "v", ex=100) and r.get("k") == "v" and 0 < r.ttl("k") <= 100
    assert r.mset({"a": 1, "b": 2}) and r.mget("a", "b", "none") == ["1", "2", None]
    assert r.incrbyfloat("a", 1.5) == 2.5
    assert r.rpush("l", *"abc") == 3 and r.lrange("l", 0, -1) == ["a", "b", "c"] and r.lpop("l") == "a"
    assert r.sadd("s", "x", "y") == 2 and r.smembers("s") == {"x", "y"}
    assert r.hset("h", mapping={"f": "1", "g": "2"}) == 2 and r.hgetall("h") == {"f": "1", "g": "2"}
    assert r.zadd("z", {"one": 1, "two": 2}) == 2
    ranged = r.zrange("z", 0, -1, withscores=True)
    assert [tuple(pair) for pair in ranged] == [("one", 1.0), ("two", 2.0)], ranged
    assert r.zscore("z", "two") == 2.0
    first = r.xadd("x", {"f": "v"})
    assert r.xlen("x") == 1 and r.xrange("x") == [(first, {"f": "v"})]
    assert r.type("x") == "stream" and r.exists("k", "l", "none") == 2
    assert r.delete("k", "l", "none") == 2


def check_transactions(r):
    r.flushall()
    with r.pipeline(transaction=True) as pipe:
        assert pipe.set("n", 1).incr("n").get("n").execute() == [True, 2, "2"]
    with r.pipeline() as pipe:
        pipe.watch("n")
        r.set("n", 10)
        pipe.multi()
        pipe.incr("n")
        try:
            pipe.execute()
            raise AssertionError("a watched key had changed")
        except redis.WatchError:
            pass
    assert r.get("n") == "10"


def check_scan(r):
    r.flushall()
    with r.pipeline(transaction=False) as pipe:
        for i in range(2000):
            pipe.set(f"key:{i}", i)
        pipe.execute()
    assert set(r.scan_iter(count=50)) == {f"key:{i}" for i in range(2000)}
    assert set(r.scan_iter(match="key:1?", count=500)) == {f"key:1{i}" for i in range(10)}


def check_pubsub(r):
    listener = r.pubsub()
    listener.subscribe("news")
    listener.psubscribe("n*")
    seen = []

    def read(want):
        wait_until(f"{want} messages", lambda: (lambda m: seen.append(m) if m else None)(
            listener.get_message(timeout=0.2)) or len(seen) >= want)
    read(2)
    assert r.publish("news", "hello") == 2
    read(4)
    assert [m["type"] for m in seen] == ["subscribe", "psubscribe", "message", "pmessage"]
    assert seen[2]["data"] == "hello" and seen[3]["pattern"] == "n*"
    listener.close()


def check_introspection(r):
    assert r.client_setname("judge") and r.client_getname() == "judge"
    assert any(c["name"] == "judge" for c in r.client_list())
    assert r.info("server")["redis_version"].startswith("7.")
    assert r.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert r.command()["get"]["arity"] == 2
    assert abs(r.time()[0] - time.time()) < 10
    assert r.echo("x") == "x" and r.ping()


def shown(tls, user):
    """What a client over TLS shows, and whom it believes, names included."""
    return {"ssl": True, "ssl_ca_certs": tls.path("ca.crt"), "ssl_certfile": tls.path("client.crt"),
            "ssl_keyfile": tls.path("client.key"), "ssl_check_hostname": True, "decode_responses": True,
            "username": user, "password": PASSWORD}


def check_is_the_app(r):
    assert r.set("app:{k}", "v") and r.get("app:{k}") == "v"
    try:
        r.get("other:{k}")
        raise AssertionError("not its key")
    except redis.exceptions.NoPermissionError:
        pass


def check_tls(secured):
    tls, secure = secured.tls, secured.tls.port(secured.node)
    for protocol in (2, 3):
        r = redis.Redis(host="localhost", port=secure, protocol=protocol, **shown(tls, "app"))
        assert r.acl_whoami() == "app"
        check_is_the_app(r)
        r = redis.Redis(host="localhost", port=secure, protocol=protocol, **shown(tls, "whole"))
        for check in (check_types, check_transactions, check_scan, check_pubsub, check_introspection):
            check(r)
        big = "x" * 5_000_000
        assert r.set("big", big) and r.get("big") == big
    strangers = redis.Redis(host="localhost", port=secure, ssl=True, ssl_ca_certs=tls.path("ca.crt"))
    try:
        strangers.ping()
        raise AssertionError("a client without a certificate was served")
    except (redis.ConnectionError, OSError):
        pass


def check_tls_cluster(secured):
    ports = [secured.tls.port(port) for port in secured.cluster]
    r = RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", ports[0])], **shown(secured.tls, "app"))
    assert sorted(node.port for node in r.get_primaries()) == sorted(ports), "it is sent to ports that speak TLS"
    check_is_the_app(r)

    def written():
        try:
            return all(r.set(f"app:{i}", i) for i in range(500))
        except redis.RedisError:
            return False
    wait_until("the cluster serves", written)
    assert [r.get(f"app:{i}") for i in range(500)] == [str(i) for i in range(500)]


def check_tls_sentinel(secured):
    tls, watched = secured.tls, secured.watched
    guards = [("localhost", tls.port(port)) for port in watched.guards]
    sentinel = redis.sentinel.Sentinel(guards, sentinel_kwargs={**shown(tls, "guard"), "socket_timeout": 5},
                                       socket_timeout=5, **shown(tls, "app"))
    r = sentinel.master_for(PRIMARY_NAME)
    check_is_the_app(r)
    old = sentinel.discover_master(PRIMARY_NAME)

    def begins():
        try:
            return Client(watched.guards[0])("SENTINEL", "FAILOVER", PRIMARY_NAME) == "OK"
        except ReplyError:
            return False
    wait_until("the sentinels begin", begins)

    def followed():
        try:
            return sentinel.discover_master(PRIMARY_NAME) != old and r.set("app:k", "w")
        except (redis.RedisError, OSError):
            return False
    wait_until("the client follows", followed)
    assert r.get("app:k") == "w"


def cluster_client(cluster):
    nodes = [ClusterNode("127.0.0.1", p) for p in cluster.ports]
    return RedisCluster(startup_nodes=nodes, decode_responses=True, socket_timeout=5,
                        retry=Retry(ConstantBackoff(0.05), 3))


def check_cluster_workload(cluster):
    r = cluster_client(cluster)
    for i in range(3000):
        assert r.set(f"key:{i}", i)
    with r.pipeline() as pipe:
        for i in range(3000):
            pipe.get(f"key:{i}")
        assert pipe.execute() == [str(i) for i in range(3000)]
    assert r.mset_nonatomic({f"key:{i}": "x" for i in range(100)})
    assert r.mget_nonatomic(*[f"key:{i}" for i in range(100)]) == ["x"] * 100
    assert r.mset({"{tag}a": 1, "{tag}b": 2}) and r.mget("{tag}a", "{tag}b") == ["1", "2"]
    assert r.dbsize(target_nodes=RedisCluster.PRIMARIES) == 3002
    assert len(set(r.scan_iter(count=500))) == 3002
    assert len(r.get_primaries()) == 3 and len(r.get_replicas()) == 3
    assert r.keyslot("{tag}a") == int(r.cluster_keyslot("{tag}a"))


def check_cluster_pubsub(cluster):
    r = cluster_client(cluster)
    listener = r.pubsub()
    listener.subscribe("news")
    wait_until("subscribed", lambda: (listener.get_message(timeout=0.2) or {}).get("type") == "subscribe")
    # Any node passes a message on to all others.
    Client(cluster.ports[4])("PUBLISH", "news", "hello")
    wait_until("the message", lambda: (listener.get_message(timeout=0.2) or {}).get("data") == "hello")
    listener.close()


def check_cluster_loses_a_primary(cluster):
    r = cluster_client(cluster)
    victim = r.get_node_from_key("{lost}").port
    done, acknowledged, errors = threading.Event(), [], []

    def write(name):
        client, i = cluster_client(cluster), 0
        while not done.is_set():
            i += 1
            try:
                client.set(f"{{lost}}:{name}:{i}", i)
                acknowledged.append(time.monotonic())
            except (redis.RedisError, OSError) as e:
                errors.append(e)
                time.sleep(0.02)
    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for w in writers:
        w.start()
    try:
        wait_until("the load runs", lambda: len(acknowledged) > 300)
        cluster.rig.kill(victim)
        killed = time.monotonic()
        wait_until("writes go on", lambda: acknowledged and acknowledged[-1] > killed + 0.5, 30)
    finally:
        done.set()
        for w in writers:
            w.join()
    first = min(t for t in acknowledged if t > killed + 0.2)
    print(f"  first write acknowledged {first - killed:.2f} s after the kill, {len(errors)} errors seen", flush=True)
    # Clients of a busy machine add their own retries to node timeout + 2 s.
    assert first - killed < NODE_TIMEOUT_MS / 1000 + 2 + 3
    cluster.heal()


def check_sentinel_is_followed(rig):
    watched = Watched(rig)
    primary = watched.nodes[0]
    sentinel = redis.sentinel.Sentinel([("127.0.0.1", p) for p in watched.guards], socket_timeout=1)
    assert len(sentinel.discover_slaves(PRIMARY_NAME)) == 2
    for guard in sentinel.sentinels:
        state = guard.sentinel_master(PRIMARY_NAME)
        assert state["is_master"] and state["num-slaves"] == 2 and state["quorum"] == 2, state
        # An error if there is no quorum; redis-py compares the text of success with another one.
        guard.sentinel_ckquorum(PRIMARY_NAME)
    writer = sentinel.master_for(PRIMARY_NAME, socket_timeout=1)
    reader = sentinel.slave_for(PRIMARY_NAME, socket_timeout=1)
    assert sentinel.discover_master(PRIMARY_NAME) == ("127.0.0.1", primary)
    assert writer.set("k", "v")
    wait_until("a replica has it", lambda: reader.get("k") == b"v")
    rig.kill(primary)

    def written():
        try:
            return writer.set("k", "w")
        except (redis.RedisError, OSError):
            return False
    wait_until("the client follows", written)
    assert sentinel.discover_master(PRIMARY_NAME)[1] in watched.nodes[1:]
    rig.launch(primary)

    def demoted():
        try:
            return Client(primary).info()["role"] == "slave"
        except OSError:  # sentinels close the clients of a node that they demote
            return False
    wait_until("the old primary becomes a replica", demoted, 60)


def main():
    rig, checks = Rig(), Checks("redis-py")
    print(f"redis-py {redis.__version__}", flush=True)
    try:
        for protocol in (2, 3):
            r = plain_node(rig, protocol)
            for check in (check_types, check_transactions, check_scan, check_pubsub, check_introspection):
                checks.run(f"{check.__name__[6:]} in RESP{protocol}", check, r)
        secured = checks.run("a node, a cluster and sentinels speak TLS and know users", Secured, rig)
        for name, check in (("a user over TLS", check_tls), ("a user in a cluster over TLS", check_tls_cluster),
                            ("users of sentinels over TLS that switch", check_tls_sentinel)):
            checks.run(name, check, secured)
        checks.run("a sentinel's client follows", check_sentinel_is_followed, rig)
        cluster = checks.run("a cluster forms", Cluster, rig)
        for check in (check_cluster_workload, check_cluster_pubsub, check_cluster_loses_a_primary):
            checks.run(check.__name__[6:].replace("_", " "), check, cluster)
    finally:
        rig.close(keep=checks.failed > 0)
    sys.exit(0 if checks.end() else 1)


if __name__ == "__main__":
    main()

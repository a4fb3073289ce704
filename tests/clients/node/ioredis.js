// ioredis against a node in both protocols, a cluster that loses a primary, sentinels that switch, and all three of them
// over TLS with certificates of clients and with users.
"use strict";

const Redis = require("ioredis");
const { assert, rig, shown, switchOver, until, main, kill } = require("./check");

const LOOPBACK = "127.0.0.1";
const open = new Set();

function kept(client) {
  // Errors of connections are part of what is tried here.
  client.on("error", () => {});
  open.add(client);
  return client;
}

const node = (options = {}) => kept(new Redis({ host: LOOPBACK, port: rig.node, ...options }));

async function withNode(options, check) {
  const r = node(options);
  await r.flushall();
  try {
    await check(r);
  } finally {
    r.disconnect();
  }
}

async function types(r) {
  assert.equal(await r.set("k", "v", "EX", 100), "OK");
  assert.equal(await r.get("k"), "v");
  assert.ok((await r.ttl("k")) > 0);
  assert.deepEqual(await r.mget("k", "none"), ["v", null]);
  assert.equal(await r.rpush("l", "a", "b", "c"), 3);
  assert.deepEqual(await r.lrange("l", 0, -1), ["a", "b", "c"]);
  assert.equal(await r.sadd("s", "x", "y"), 2);
  assert.deepEqual((await r.smembers("s")).sort(), ["x", "y"]);
  await r.hset("h", { f: "1", g: "2" });
  assert.deepEqual({ ...(await r.hgetall("h")) }, { f: "1", g: "2" });
  await r.zadd("z", 1, "one", 2.5, "two");
  assert.deepEqual(await r.zrange("z", 0, -1, "WITHSCORES"), ["one", "1", "two", "2.5"]);
  assert.equal(await r.zscore("z", "two"), "2.5");
  const id = await r.xadd("x", "*", "f", "v");
  assert.deepEqual(await r.xrange("x", "-", "+"), [[id, ["f", "v"]]]);
  assert.deepEqual(await r.xread("COUNT", 5, "STREAMS", "x", "0"), [["x", [[id, ["f", "v"]]]]]);
  assert.deepEqual(await r.config("GET", "maxmemory"), ["maxmemory", "0"]);
  const bytes = Buffer.from([0, 255, 13, 10, 128]);
  await r.set("bytes", bytes);
  assert.ok((await r.getBuffer("bytes")).equals(bytes));
  await assert.rejects(r.incr("k"), /ERR value is not an integer or out of range/);
  await assert.rejects(r.lpush("k", "x"), /WRONGTYPE/);
}

async function resp3Shapes() {
  await withNode({ replyMapping: "resp3" }, async (r) => {
    await r.zadd("z", 1.5, "m");
    assert.equal(await r.zscore("z", "m"), 1.5);
    assert.deepEqual({ ...(await r.config("GET", "maxmemory")) }, { maxmemory: "0" });
  });
}

async function pipelines() {
  await withNode({}, async (r) => {
    const pipe = r.pipeline();
    for (let i = 0; i < 5000; i++) pipe.set(`k:${i}`, i);
    pipe.incr("k:1").lpush("k:2", "x").get("k:4999");
    const replies = await pipe.exec();
    assert.equal(replies.length, 5003);
    assert.deepEqual(replies[5000], [null, 2]);
    assert.match(replies[5001][0].message, /WRONGTYPE/);
    assert.deepEqual(replies[5002], [null, "4999"]);
  });
  await withNode({ enableAutoPipelining: true }, async (r) => {
    const all = Array.from({ length: 1000 }, (_, i) => i);
    await Promise.all(all.map((i) => r.set(`k:${i}`, i)));
    assert.deepEqual(await Promise.all(all.map((i) => r.get(`k:${i}`))), all.map(String));
  });
}

async function transactions() {
  await withNode({}, async (r) => {
    assert.deepEqual(await r.multi().set("n", 1).incr("n").get("n").exec(), [[null, "OK"], [null, 2], [null, "2"]]);
    await r.watch("n");
    const other = node();
    await other.set("n", 10);
    other.disconnect();
    assert.equal(await r.multi().incr("n").exec(), null);
    await r.multi({ pipeline: false });
    assert.equal(await r.incr("n"), "QUEUED");
    assert.deepEqual(await r.exec(), [[null, 11]]);
    await assert.rejects(r.multi().set("n").exec(), /EXECABORT/);
  });
}

async function pubsub() {
  for (const protocol of [2, 3]) {
    await withNode({ protocol }, async (r) => {
      const listener = node({ protocol });
      const seen = [];
      listener.on("message", (channel, text) => seen.push([channel, text]));
      listener.on("pmessage", (pattern, channel, text) => seen.push([pattern, channel, text]));
      assert.equal(await listener.subscribe("news", "sport"), 2);
      assert.equal(await listener.psubscribe("n*"), 3);
      assert.equal(await r.publish("news", "hello"), 2);
      await until("both arrive", () => seen.length === 2);
      assert.deepEqual(seen, [["news", "hello"], ["n*", "news", "hello"]]);
      assert.equal(await listener.unsubscribe("news", "sport"), 1);
      // Whoever is cut off subscribes again.
      const id = await r.call("CLIENT", "LIST", "TYPE", "PUBSUB").then((text) => /id=(\d+)/.exec(text)[1]);
      await r.call("CLIENT", "KILL", "ID", id);
      await until("it is back", async () => (await r.publish("nothing", "again")) === 1);
      await until("it hears again", () => seen.at(-1)[2] === "again");
      listener.disconnect();
    });
  }
}

async function blocking() {
  await withNode({}, async (r) => {
    const waiter = node();
    const popped = waiter.blpop("a", "b", 0);
    await until("it waits", async () => /blocked_clients:1/.test(await r.info("clients")));
    await r.rpush("b", "x");
    assert.deepEqual(await popped, ["b", "x"]);
    assert.equal(await waiter.blpop("a", 0.05), null);
    const least = waiter.bzpopmin("z", 0);
    await until("it waits", async () => /blocked_clients:1/.test(await r.info("clients")));
    await r.zadd("z", 1.5, "m");
    assert.deepEqual(await least, ["z", "m", "1.5"]);
    await r.xgroup("CREATE", "x", "g", "$", "MKSTREAM");
    const entry = waiter.xreadgroup("GROUP", "g", "me", "BLOCK", 0, "STREAMS", "x", ">");
    await until("it waits", async () => /blocked_clients:1/.test(await r.info("clients")));
    const id = await r.xadd("x", "*", "f", "v");
    assert.deepEqual(await entry, [["x", [[id, ["f", "v"]]]]]);
    assert.equal(await r.xack("x", "g", id), 1);
    waiter.disconnect();
  });
}

const SCRIPT = `
local old = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return {old, redis.call('STRLEN', KEYS[1]), {KEYS[1]}}`;

async function scripts() {
  await withNode({}, async (r) => {
    r.defineCommand("swap", { numberOfKeys: 1, lua: SCRIPT });
    await r.script("FLUSH");
    assert.deepEqual(await r.swap("k", "one"), [null, 3, ["k"]]);
    // Known now, by its digest.
    assert.deepEqual(await r.swap("k", "three"), ["one", 5, ["k"]]);
    assert.deepEqual(await r.pipeline().swap("k", "x").swap("k", "yy").exec(), [
      [null, ["three", 1, ["k"]]], [null, ["x", 2, ["k"]]],
    ]);
    await assert.rejects(r.eval("return redis.call('INCR', KEYS[1])", 1, "k"), /ERR value is not an integer.*script:/);
    await r.function("LOAD", "REPLACE", "#!lua name=lib\nredis.register_function('twice', function(k, a) return 2 * a[1] end)");
    assert.equal(await r.fcall("twice", 0, 21), 42);
  });
}

async function scanAndMonitor() {
  await withNode({}, async (r) => {
    const pipe = r.pipeline();
    for (let i = 0; i < 3000; i++) pipe.set(`key:${i}`, i);
    await pipe.exec();
    const found = new Set();
    for await (const keys of r.scanStream({ match: "key:*", count: 100 })) keys.forEach((key) => found.add(key));
    assert.equal(found.size, 3000);
    const monitor = await r.monitor();
    const seen = [];
    monitor.on("monitor", (time, args) => seen.push(args));
    await r.set("watched", "v");
    await until("it is shown", () => seen.some((args) => args.join(" ") === "set watched v"));
    monitor.disconnect();
  });
}

function cluster(options = {}) {
  const nodes = rig.cluster.map(({ port }) => ({ host: LOOPBACK, port }));
  return kept(new Redis.Cluster(nodes, { slotsRefreshTimeout: 5000, retryDelayOnFailover: 200, maxRedirections: 60, ...options }));
}

async function withCluster(options, check) {
  const c = cluster(options);
  try {
    await until("the cluster is known", () => c.nodes("slave").length === 3);
    await Promise.all(c.nodes("master").map((n) => n.flushall()));
    await check(c);
  } finally {
    c.disconnect();
  }
}

async function clusterWorkload() {
  await withCluster({}, async (c) => {
    const all = Array.from({ length: 2000 }, (_, i) => i);
    await Promise.all(all.map((i) => c.set(`key:${i}`, i)));
    assert.deepEqual(await Promise.all(all.map((i) => c.get(`key:${i}`))), all.map(String));
    const sizes = await Promise.all(c.nodes("master").map((n) => n.dbsize()));
    assert.equal(sizes.length, 3);
    assert.equal(sizes.reduce((a, b) => a + b), 2000);
    assert.deepEqual(await c.multi().set("{t}a", 1).incr("{t}a").exec(), [[null, "OK"], [null, 2]]);
    assert.deepEqual(await c.pipeline().set("{t}b", 5).get("{t}b").exec(), [[null, "OK"], [null, "5"]]);
    await assert.rejects(c.mset("a", 1, "b", 2), /CROSSSLOT/);
    c.defineCommand("swap", { numberOfKeys: 1, lua: SCRIPT });
    assert.deepEqual(await c.swap("{t}k", "one"), [null, 3, ["{t}k"]]);
    // Whoever waits keeps the connection to its node.
    const waiter = cluster();
    const popped = waiter.blpop("{t}l", 10);
    await c.rpush("{t}l", "x");
    assert.deepEqual(await popped, ["{t}l", "x"]);
    waiter.disconnect();
  });
  await withCluster({ scaleReads: "slave" }, async (c) => {
    await c.set("far", "v");
    await until("a replica has it", async () => (await c.get("far")) === "v");
  });
}

async function clusterPubsub() {
  await withCluster({}, async (c) => {
    const listener = cluster();
    const seen = [];
    listener.on("message", (channel, text) => seen.push(text));
    await listener.subscribe("news");
    await c.publish("news", "hello");
    await until("the message", () => seen.includes("hello"));
    listener.disconnect();
  });
  await withCluster({ shardedSubscribers: true }, async (c) => {
    const seen = [];
    c.on("smessage", (channel, text) => seen.push([channel, text]));
    for (const channel of ["one", "two", "three", "four"]) await c.ssubscribe(channel);
    for (const channel of ["one", "two", "three", "four"]) {
      await until("it is heard", async () => (await c.spublish(channel, channel)) === 1);
    }
    await until("all arrive", () => new Set(seen.map(([, text]) => text)).size === 4);
  });
}

async function clusterLosesAPrimary() {
  await withCluster({}, async (c) => {
    const nodes = await c.cluster("SLOTS");
    const slot = await c.cluster("KEYSLOT", "{lost}");
    const owner = nodes.find(([from, to]) => from <= slot && slot <= to)[2][1];
    const written = [];
    let done = false;
    const writer = (async () => {
      for (let i = 0; !done; i++) {
        await c.set(`{lost}:${i}`, i).then(() => written.push(Date.now()), () => {});
      }
    })();
    await until("the load runs", () => written.length > 100);
    kill(rig.cluster, owner);
    const killed = Date.now();
    await until("writes go on", () => written.at(-1) > killed + 1000);
    done = true;
    await writer;
  });
}

function guarded(options = {}) {
  const sentinels = rig.watched.guards.map((port) => ({ host: LOOPBACK, port }));
  return kept(new Redis({ sentinels, name: rig.watched.name, sentinelRetryStrategy: () => 100, ...options }));
}

async function sentinelIsFollowed() {
  const writer = guarded();
  const detector = guarded({ failoverDetector: true });
  const reader = guarded({ role: "slave" });
  await writer.set("k", "v");
  await detector.set("d", "v");
  await until("a replica has it", async () => (await reader.get("k")) === "v");
  assert.match(await reader.info("replication"), /role:slave/);
  await assert.rejects(reader.set("k", "w"), /READONLY/);
  const guard = kept(new Redis({ host: LOOPBACK, port: rig.watched.guards[0] }));
  const [, old] = await guard.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", rig.watched.name);
  const events = [];
  const listener = kept(new Redis({ host: LOOPBACK, port: rig.watched.guards[1] }));
  listener.on("pmessage", (_, channel, text) => events.push([channel, text]));
  await listener.psubscribe("*");
  kill(rig.watched.nodes, old);
  // Commands wait for the new primary.
  assert.equal(await writer.set("k", "w"), "OK");
  // This one drops its connection once more when it is told of the switch, and gives up what is under way.
  await until("the detector writes", async () => (await detector.set("d", "w").catch(String)) === "OK");
  const [, now] = await guard.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", rig.watched.name);
  assert.notEqual(now, old);
  assert.match(await writer.info("replication"), /role:master/);
  await until("the switch is told", () => events.some(([channel, text]) =>
    channel === "+switch-master" && text === `${rig.watched.name} ${LOOPBACK} ${old} ${LOOPBACK} ${now}`));
  await until("the reader follows", async () => (await reader.get("k")) === "w");
}

const app = () => ({ tls: shown(), username: "app", password: rig.secured.password });

// The client is whom it says, and may do what that user may.
async function isTheApp(r) {
  assert.equal(await r.set("app:{k}", "v"), "OK");
  assert.equal(await r.get("app:{k}"), "v");
  await assert.rejects(r.get("other:{k}"), /NOPERM/);
  await assert.rejects(r.config("GET", "port"), /NOPERM/);
  assert.deepEqual(await r.multi().set("app:{k}n", 1).incr("app:{k}n").exec(), [[null, "OK"], [null, 2]]);
}

async function overTls() {
  const r = kept(new Redis({ host: LOOPBACK, port: rig.secured.node, ...app() }));
  assert.equal(await r.call("ACL", "WHOAMI"), "app");
  await isTheApp(r);
  const big = "x".repeat(2_000_000);
  await r.set("app:big", big);
  assert.equal(await r.get("app:big"), big);
  const { cert, key, ...stranger } = shown();
  const other = kept(new Redis({ host: LOOPBACK, port: rig.secured.node, tls: stranger, retryStrategy: null }));
  await assert.rejects(other.ping(), "a client without a certificate was served");
}

async function clusterOverTls() {
  const nodes = rig.secured.cluster.map((port) => ({ host: LOOPBACK, port }));
  const c = kept(new Redis.Cluster(nodes, { redisOptions: app(), slotsRefreshTimeout: 5000 }));
  await isTheApp(c);
  const all = Array.from({ length: 500 }, (_, i) => i);
  await Promise.all(all.map((i) => c.set(`app:${i}`, i)));
  assert.deepEqual(await Promise.all(all.map((i) => c.get(`app:${i}`))), all.map(String));
  const ports = c.nodes("master").map((n) => n.options.port);
  assert.deepEqual(ports.sort(), [...rig.secured.cluster].sort(), "it is sent to ports that speak TLS");
}

async function sentinelsOverTls() {
  const { secured } = rig;
  const who = { tls: shown(), username: "guard", password: secured.password };
  const guard = kept(new Redis({ host: LOOPBACK, port: secured.guards[0], ...who }));
  const primary = async () => (await guard.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", secured.name))[1];
  const r = kept(new Redis({
    sentinels: secured.guards.map((port) => ({ host: LOOPBACK, port })),
    name: secured.name,
    sentinelUsername: "guard",
    sentinelPassword: secured.password,
    sentinelTLS: shown(),
    enableTLSForSentinelMode: true,
    sentinelRetryStrategy: () => 100,
    ...app(),
  }));
  await isTheApp(r);
  const old = await primary();
  await assert.rejects(guard.call("SENTINEL", "FAILOVER", secured.name), /NOPERM/);
  await until("the sentinels begin", switchOver);
  await until("another one is the primary", async () => (await primary()) !== old);
  await until("the client follows", async () => (await r.set("app:k", "w")) === "OK" && `${r.stream.remotePort}` !== old);
}

main("ioredis", require("ioredis/package.json").version, [
  ["types in RESP2", () => withNode({ protocol: 2 }, types)],
  ["types in RESP3", () => withNode({ protocol: 3 }, types)],
  ["shapes of RESP3", resp3Shapes],
  ["pipelines", pipelines],
  ["transactions", transactions],
  ["pub/sub in both protocols", pubsub],
  ["blocking", blocking],
  ["scripts and functions", scripts],
  ["scan and monitor", scanAndMonitor],
  ["a cluster", clusterWorkload],
  ["pub/sub in a cluster", clusterPubsub],
  ["a cluster that loses a primary", clusterLosesAPrimary],
  ["sentinels that switch", sentinelIsFollowed],
  ["a user over TLS", overTls],
  ["a user in a cluster over TLS", clusterOverTls],
  ["users of sentinels over TLS that switch", sentinelsOverTls],
]);

// node-redis against a node in both protocols, a cluster that loses a primary, sentinels that switch, and all three of them
// over TLS with certificates of clients and with users.
"use strict";

const {
  createClient, createClientPool, createCluster, createSentinel, defineScript, BasicClientSideCache,
} = require("redis");
const { assert, rig, shown, switchOver, until, main, kill } = require("./check");

const LOOPBACK = "127.0.0.1";

async function connected(client) {
  // Errors of connections are part of what is tried here.
  client.on("error", () => {});
  return client.connect();
}

const node = (options = {}) => connected(createClient({ socket: { host: LOOPBACK, port: rig.node }, ...options }));

async function withNode(options, check) {
  const r = await node(options);
  await r.flushAll();
  try {
    await check(r);
  } finally {
    r.destroy();
  }
}

async function types(r) {
  assert.equal(await r.set("k", "v", { EX: 100 }), "OK");
  assert.equal(await r.get("k"), "v");
  assert.ok((await r.ttl("k")) > 0);
  assert.deepEqual(await r.mGet(["k", "none"]), ["v", null]);
  assert.equal(await r.rPush("l", ["a", "b", "c"]), 3);
  assert.deepEqual(await r.lRange("l", 0, -1), ["a", "b", "c"]);
  assert.equal(await r.sAdd("s", ["x", "y"]), 2);
  assert.deepEqual([...(await r.sMembers("s"))].sort(), ["x", "y"]);
  await r.hSet("h", { f: "1", g: "2" });
  assert.deepEqual({ ...(await r.hGetAll("h")) }, { f: "1", g: "2" });
  await r.zAdd("z", [{ score: 1, value: "one" }, { score: 2.5, value: "two" }]);
  assert.deepEqual((await r.zRangeWithScores("z", 0, -1)).map((e) => [e.value, e.score]), [["one", 1], ["two", 2.5]]);
  assert.equal(await r.zScore("z", "two"), 2.5);
  const id = await r.xAdd("x", "*", { f: "v" });
  assert.equal((await r.xRange("x", "-", "+"))[0].id, id);
  const [stream] = await r.xRead({ key: "x", id: "0" });
  assert.deepEqual({ ...stream.messages[0].message }, { f: "v" });
  assert.equal((await r.configGet("maxmemory")).maxmemory, "0");
  assert.deepEqual(await r.hExpire("h", "f", 100), [1]);
  assert.equal((await r.geoAdd("g", { longitude: 13.361389, latitude: 38.115556, member: "p" })), 1);
  await assert.rejects(r.incr("k"), /ERR value is not an integer or out of range/);
  await assert.rejects(r.lPush("k", "x"), /WRONGTYPE/);
  assert.equal((await r.clientInfo()).libName, "node-redis");
}

async function pipelinesAndTransactions() {
  await withNode({}, async (r) => {
    const all = Array.from({ length: 3000 }, (_, i) => i);
    await Promise.all(all.map((i) => r.set(`k:${i}`, String(i))));
    assert.deepEqual(await Promise.all(all.map((i) => r.get(`k:${i}`))), all.map(String));
    assert.deepEqual(await r.multi().set("n", "1").incr("n").get("n").exec(), ["OK", 2, "2"]);
    assert.deepEqual(await r.multi().set("m", "1").get("m").execAsPipeline(), ["OK", "1"]);
    await r.watch("n");
    const other = await node();
    await other.set("n", "10");
    other.destroy();
    await assert.rejects(r.multi().incr("n").exec(), /watched key/i);
  });
}

async function pool() {
  const p = createClientPool({ socket: { host: LOOPBACK, port: rig.node } }, { minimum: 2, maximum: 8 });
  p.on("error", () => {});
  await p.connect();
  try {
    const popped = p.execute((client) => client.blPop("queue", 5));
    await p.rPush("queue", "x");
    assert.deepEqual({ ...(await popped) }, { key: "queue", element: "x" });
    assert.equal(await p.execute((client) => client.blPop("queue", 0.05)), null);
  } finally {
    p.destroy();
  }
}

async function pubsub() {
  for (const RESP of [2, 3]) {
    await withNode({ RESP }, async (r) => {
      const listener = await node({ RESP });
      const seen = [];
      await listener.subscribe("news", (text, channel) => seen.push([channel, text]));
      await listener.pSubscribe("n*", (text, channel) => seen.push(["n*", channel, text]));
      assert.equal(await r.publish("news", "hello"), 2);
      await until("both arrive", () => seen.length === 2);
      assert.deepEqual(seen, [["news", "hello"], ["n*", "news", "hello"]]);
      await listener.unsubscribe("news");
      await listener.pUnsubscribe("n*");
      assert.equal(await listener.get("none"), null);
      listener.destroy();
    });
  }
}

const SCRIPT = `
local old = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return {old, redis.call('STRLEN', KEYS[1]), {KEYS[1]}}`;

const swap = defineScript({
  NUMBER_OF_KEYS: 1,
  SCRIPT,
  parseCommand: (parser, key, value) => {
    parser.pushKey(key);
    parser.push(value);
  },
  transformReply: (reply) => reply,
});

const LIBRARY = "#!lua name=lib\nredis.register_function('twice', function(k, a) return 2 * a[1] end)";

async function scripts() {
  await withNode({ scripts: { swap } }, async (r) => {
    await r.scriptFlush();
    assert.deepEqual(await r.swap("k", "one"), [null, 3, ["k"]]);
    assert.deepEqual(await r.swap("k", "three"), ["one", 5, ["k"]]);
    assert.deepEqual(await r.multi().swap("k", "x").exec(), [["three", 1, ["k"]]]);
    assert.equal(await r.functionLoad(LIBRARY, { REPLACE: true }), "lib");
    assert.equal(await r.fCall("twice", { arguments: ["21"] }), 42);
  });
}

async function clientSideCaching() {
  const cache = new BasicClientSideCache({ ttl: 0, maxEntries: 0, evictPolicy: "LRU" });
  await withNode({ RESP: 3, clientSideCache: cache }, async (r) => {
    const writer = await node();
    await writer.set("k", "one");
    assert.equal(await r.get("k"), "one");
    assert.equal(await r.get("k"), "one");
    const { hitCount } = cache.stats();
    assert.equal(hitCount, 1);
    await writer.set("k", "two");
    await until("it is told", async () => (await r.get("k")) === "two");
    await writer.hSet("h", "f", "1");
    assert.equal((await r.hGetAll("h")).f, "1");
    await writer.hSet("h", "f", "2");
    await until("it is told", async () => (await r.hGetAll("h")).f === "2");
    await writer.flushAll();
    await until("it is told", async () => (await r.get("k")) === null);
    writer.destroy();
  });
}

async function scan() {
  await withNode({}, async (r) => {
    await Promise.all(Array.from({ length: 3000 }, (_, i) => r.set(`key:${i}`, "v")));
    const found = new Set();
    for await (const keys of r.scanIterator({ MATCH: "key:*", COUNT: 100 })) keys.forEach((key) => found.add(key));
    assert.equal(found.size, 3000);
  });
}

async function withCluster(options, check) {
  const rootNodes = rig.cluster.map(({ port }) => ({ socket: { host: LOOPBACK, port } }));
  const c = createCluster({ rootNodes, maxCommandRedirections: 100, ...options });
  await connected(c);
  try {
    await Promise.all(c.masters.map(async (master) => (await c.nodeClient(master)).flushAll()));
    await check(c);
  } finally {
    c.destroy();
  }
}

async function clusterWorkload() {
  await withCluster({ scripts: { swap } }, async (c) => {
    const all = Array.from({ length: 2000 }, (_, i) => i);
    await Promise.all(all.map((i) => c.set(`key:${i}`, String(i))));
    assert.deepEqual(await Promise.all(all.map((i) => c.get(`key:${i}`))), all.map(String));
    assert.equal(c.masters.length, 3);
    assert.deepEqual(await c.multi().set("{t}a", "1").incr("{t}a").exec(), ["OK", 2]);
    assert.deepEqual(await c.swap("{t}k", "one"), [null, 3, ["{t}k"]]);
    const seen = [];
    await c.subscribe("news", (text) => seen.push(text));
    await c.sSubscribe("shard", (text) => seen.push(text));
    await until("it is heard", async () => (await c.sPublish("shard", "one")) === 1);
    await c.publish("news", "two");
    await until("both arrive", () => seen.includes("one") && seen.includes("two"));
  });
  await withCluster({ useReplicas: true }, async (c) => {
    assert.equal(c.replicas.length, 3);
    await c.set("far", "v");
    await until("a replica has it", async () => (await c.get("far")) === "v");
  });
}

async function clusterLosesAPrimary() {
  await withCluster({}, async (c) => {
    const owner = c.slots[await c.sendCommand(undefined, true, ["CLUSTER", "KEYSLOT", "{lost}"])].master.port;
    const written = [];
    let done = false;
    const writer = (async () => {
      for (let i = 0; !done; i++) {
        const late = new Promise((_, fail) => setTimeout(() => fail(new Error("late")), 1000));
        await Promise.race([c.set(`{lost}:${i}`, "v"), late]).then(() => written.push(Date.now()), () => {});
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

async function sentinelIsFollowed() {
  const s = createSentinel({
    name: rig.watched.name,
    sentinelRootNodes: rig.watched.guards.map((port) => ({ host: LOOPBACK, port })),
    scanInterval: 200,
    replicaPoolSize: 1,
    maxCommandRediscovers: 100,
    passthroughClientErrorEvents: false,
  });
  await connected(s);
  try {
    assert.equal(await s.set("k", "v"), "OK");
    await until("a replica has it", async () => (await s.get("k")) === "v");
    assert.deepEqual(await s.multi().set("{t}a", "1").incr("{t}a").exec(), ["OK", 2]);
    const old = s.getMasterNode().port;
    const seen = [];
    await s.subscribe("news", (text) => seen.push(text));
    // It would publish over a replica, whose messages go no further.
    const publish = async (text) => {
      const primary = await node({ socket: { host: LOOPBACK, port: s.getMasterNode().port } });
      await primary.publish("news", text);
      primary.destroy();
    };
    await until("a message", async () => {
      await publish("hello");
      return seen.includes("hello");
    });
    kill(rig.watched.nodes, old);
    await until("the client follows", async () => (await s.set("k", "w")) === "OK" && s.getMasterNode().port !== old);
    await until("its subscription follows", async () => {
      await publish("again");
      return seen.includes("again");
    });
    await until("the replicas follow", async () => (await s.get("k")) === "w");
  } finally {
    s.destroy();
  }
}

const as = (username) => ({ socket: { tls: true, ...shown() }, username, password: rig.secured.password });

// The client is whom it says, and may do what that user may.
async function isTheApp(r) {
  assert.equal(await r.set("app:{k}", "v"), "OK");
  await until("it is read", async () => (await r.get("app:{k}")) === "v");
  await assert.rejects(r.get("other:{k}"), /NOPERM/);
  assert.deepEqual(await r.multi().set("app:{k}n", "1").incr("app:{k}n").exec(), ["OK", 2]);
}

async function overTls() {
  const { socket, ...user } = as("app");
  const at = { ...socket, host: LOOPBACK, port: rig.secured.node };
  const r = await connected(createClient({ socket: at, ...user }));
  assert.equal(await r.aclWhoAmI(), "app");
  await isTheApp(r);
  await assert.rejects(r.configGet("port"), /NOPERM/);
  const big = "x".repeat(2_000_000);
  await r.set("app:big", big);
  assert.equal(await r.get("app:big"), big);
  r.destroy();
  const stranger = createClient({ socket: { ...at, cert: undefined, key: undefined, reconnectStrategy: false } });
  stranger.on("error", () => {});
  await assert.rejects(stranger.connect().then(() => stranger.ping()), "a client without a certificate was served");
}

async function clusterOverTls() {
  const c = await connected(createCluster({
    rootNodes: rig.secured.cluster.map((port) => ({ socket: { host: LOOPBACK, port } })),
    defaults: as("app"),
  }));
  try {
    await isTheApp(c);
    const all = Array.from({ length: 500 }, (_, i) => i);
    await Promise.all(all.map((i) => c.set(`app:${i}`, String(i))));
    assert.deepEqual(await Promise.all(all.map((i) => c.get(`app:${i}`))), all.map(String));
    const ports = c.masters.map((master) => master.port);
    assert.deepEqual(ports.sort(), [...rig.secured.cluster].sort(), "it is sent to ports that speak TLS");
  } finally {
    c.destroy();
  }
}

async function sentinelsOverTls() {
  const { secured } = rig;
  const s = await connected(createSentinel({
    name: secured.name,
    sentinelRootNodes: secured.guards.map((port) => ({ host: LOOPBACK, port })),
    sentinelClientOptions: as("guard"),
    nodeClientOptions: as("app"),
    scanInterval: 200,
    maxCommandRediscovers: 100,
    passthroughClientErrorEvents: false,
  }));
  try {
    await isTheApp(s);
    const old = s.getMasterNode().port;
    await until("the sentinels begin", switchOver);
    await until("the client follows", async () =>
      (await s.set("app:k", "w")) === "OK" && s.getMasterNode().port !== old);
  } finally {
    s.destroy();
  }
}

main("node-redis", require("redis/package.json").version, [
  ["types in RESP2", () => withNode({ RESP: 2 }, types)],
  ["types in RESP3", () => withNode({ RESP: 3 }, types)],
  ["pipelines and transactions", pipelinesAndTransactions],
  ["a pool and blocking", pool],
  ["pub/sub in both protocols", pubsub],
  ["scripts and functions", scripts],
  ["client-side caching", clientSideCaching],
  ["scan", scan],
  ["a cluster", clusterWorkload],
  ["a cluster that loses a primary", clusterLosesAPrimary],
  ["sentinels that switch", sentinelIsFollowed],
  ["a user over TLS", overTls],
  ["a user in a cluster over TLS", clusterOverTls],
  ["users of sentinels over TLS that switch", sentinelsOverTls],
]);

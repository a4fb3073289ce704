// BullMQ on ioredis, against a node and against a cluster: its queues are Lua scripts over several keys.
"use strict";

const { fork } = require("node:child_process");
const Redis = require("ioredis");
const { FlowProducer, Queue, QueueEvents, Worker } = require("bullmq");
const { assert, rig, until, main } = require("./check");

const LOOPBACK = "127.0.0.1";
const options = { maxRetriesPerRequest: null };

function connection(kind) {
  const client = kind === "node"
    ? new Redis({ host: LOOPBACK, port: rig.node, ...options })
    : new Redis.Cluster(rig.cluster.map(({ port }) => ({ host: LOOPBACK, port })), {
      redisOptions: options, slotsRefreshTimeout: 5000,
    });
  client.on("error", () => {});
  return client;
}

// In a cluster all keys of a queue have one tag.
const prefix = (kind) => (kind === "node" ? "bull" : "{bull}");

let made = 0;

// What one check uses, closed when it ends.
async function using(kind, check) {
  const name = `queue-${(made += 1)}`;
  const shared = connection(kind);
  const common = { connection: shared, prefix: prefix(kind) };
  const open = [];
  const keep = (thing) => {
    thing.on?.("error", () => {});
    open.push(thing);
    return thing;
  };
  try {
    await check({
      name,
      common,
      queue: keep(new Queue(name, common)),
      worker: (work, more) => keep(new Worker(name, work, { ...common, ...more })),
      events: () => keep(new QueueEvents(name, common)),
      flow: () => keep(new FlowProducer(common)),
      keep,
    });
  } finally {
    await Promise.all(open.map((thing) => thing.close()));
    shared.disconnect();
  }
}

const jobs = (kind) => () => using(kind, async ({ queue, worker, events }) => {
  const heard = events();
  await heard.waitUntilReady();
  const completed = [];
  heard.on("completed", ({ returnvalue }) => completed.push(Number(returnvalue)));
  await queue.addBulk(Array.from({ length: 200 }, (_, i) => ({ name: "square", data: { i } })));
  worker(async (job) => job.data.i ** 2, { concurrency: 20 });
  const one = await queue.add("square", { i: 1000 });
  assert.equal(await one.waitUntilFinished(heard, 20_000), 1_000_000);
  await until("all are done", () => completed.length === 201);
  assert.deepEqual(completed.sort((a, b) => a - b), [...Array.from({ length: 200 }, (_, i) => i * i), 1_000_000]);
  const { completed: done, waiting, active } = await queue.getJobCounts("completed", "waiting", "active");
  assert.deepEqual({ done, waiting, active }, { done: 201, waiting: 0, active: 0 });
});

const failures = (kind) => () => using(kind, async ({ queue, worker }) => {
  const tries = {};
  worker(async (job) => {
    tries[job.name] = (tries[job.name] ?? 0) + 1;
    await job.updateProgress(50);
    await job.log("trying");
    if (job.name === "never" || tries[job.name] < 3) throw new Error("not yet");
    return "at last";
  });
  const backoff = { type: "exponential", delay: 50 };
  const good = await queue.add("third", {}, { attempts: 3, backoff });
  const bad = await queue.add("never", {}, { attempts: 2, backoff });
  await until("one succeeds", () => good.isCompleted());
  await until("one fails", () => bad.isFailed());
  assert.deepEqual(tries, { third: 3, never: 2 });
  const [failed] = await queue.getFailed();
  assert.equal(failed.failedReason, "not yet");
  assert.equal((await queue.getJobLogs(good.id)).count, 3);
  await bad.retry();
  await until("it fails again", async () => tries.never === 3 && (await bad.isFailed()));
});

const delayed = (kind) => () => using(kind, async ({ queue, worker }) => {
  const ran = [];
  worker(async (job) => ran.push(job.name));
  const began = Date.now();
  await queue.add("late", {}, { delay: 1500 });
  await queue.add("soon", {}, { delay: 400 });
  await queue.add("now", {});
  const far = await queue.add("promoted", {}, { delay: 600_000 });
  assert.equal(await far.getState(), "delayed");
  await far.promote();
  await until("all have run", () => ran.length === 4);
  assert.ok(Date.now() - began >= 1500);
  assert.deepEqual(ran.slice(2), ["soon", "late"]);
});

const priorities = (kind) => () => using(kind, async ({ queue, worker }) => {
  const ran = [];
  await queue.add("low", {}, { priority: 10 });
  await queue.add("high", {}, { priority: 1 });
  await queue.add("middle", {}, { priority: 5 });
  const gone = await queue.add("removed", {}, { priority: 2 });
  await gone.remove();
  const same = [await queue.add("once", {}, { jobId: "same", priority: 20 }), await queue.add("twice", {}, { jobId: "same" })];
  assert.equal(same[0].id, same[1].id);
  await queue.pause();
  const w = worker(async (job) => ran.push(job.name), { concurrency: 1 });
  await w.waitUntilReady();
  assert.equal(ran.length, 0);
  await queue.resume();
  await until("all have run", () => ran.length === 4);
  assert.deepEqual(ran, ["high", "middle", "low", "once"]);
  await queue.obliterate({ force: true });
  assert.equal(await queue.count(), 0);
});

const repeated = (kind) => () => using(kind, async ({ queue, worker }) => {
  let runs = 0;
  worker(async () => (runs += 1));
  await queue.upsertJobScheduler("ticker", { every: 200 }, { name: "tick" });
  await until("it runs again and again", () => runs >= 5);
  assert.equal((await queue.getJobSchedulers()).length, 1);
  assert.ok(await queue.removeJobScheduler("ticker"));
  await until("it has ended", async () => (await queue.getJobCountByTypes("delayed", "active", "waiting")) === 0);
});

const limited = (kind) => () => using(kind, async ({ queue, worker }) => {
  const at = [];
  await queue.addBulk(Array.from({ length: 12 }, () => ({ name: "x", data: {} })));
  const began = Date.now();
  worker(async () => at.push(Date.now()), { concurrency: 5, limiter: { max: 4, duration: 500 } });
  await until("all have run", () => at.length === 12);
  // Three rounds of four, so two times half a second lie before the last.
  assert.ok(at.at(-1) - began >= 950, `${at.at(-1) - began} ms`);
});

const flows = (kind) => () => using(kind, async ({ name, queue, worker, flow }) => {
  const order = [];
  worker(async (job) => {
    order.push(job.name);
    if (job.name !== "sum") return job.data.n;
    return Object.values(await job.getChildrenValues()).reduce((a, b) => a + b, 0);
  }, { concurrency: 3 });
  const child = (n) => ({ name: "leaf", queueName: name, data: { n } });
  const tree = await flow().add({
    name: "sum",
    queueName: name,
    children: [child(1), child(2), { name: "sum", queueName: name, children: [child(10), child(20)] }],
  });
  await until("the root is done", async () => (await queue.getJob(tree.job.id)).returnvalue === 33);
  assert.equal(order.length, 6);
  assert.equal(order.at(-1), "sum");
});

// A worker that is killed amid a job: another one finds the job stalled, and does it.
const killed = (kind) => () => using(kind, async ({ name, queue, worker }) => {
  const victim = fork(__filename, ["--victim", kind, name], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const job = await queue.add("slow", {});
  await new Promise((done) => victim.once("message", done));
  victim.kill("SIGKILL");
  const doers = [];
  worker(async () => doers.push("second"), { stalledInterval: 300, lockDuration: 1000 });
  await until("another worker has done it", () => job.isCompleted());
  assert.deepEqual(doers, ["second"]);
});

function victim(kind, name) {
  new Worker(name, async () => {
    process.send("it runs");
    await new Promise(() => setInterval(() => {}, 1000));
  }, { connection: connection(kind), prefix: prefix(kind), stalledInterval: 300, lockDuration: 1000 });
}

if (process.argv[2] === "--victim") {
  victim(process.argv[3], process.argv[4]);
} else {
  const checks = Object.entries({ jobs, failures, delayed, priorities, repeated, limited, flows, killed });
  main("bullmq", require("bullmq/package.json").version, ["node", "cluster"].flatMap((kind) =>
    checks.map(([name, check]) => [`${name} on a ${kind}`, check(kind)])));
}

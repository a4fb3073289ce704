// Runs named checks and prints what `cargo test` would. The servers are named in the variable RIG: see run.py.
"use strict";

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");

const rig = JSON.parse(process.env.RIG);
const LONGEST_MS = 60_000;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Waits for a condition; what it throws counts as not yet, and is told in the end.
async function until(what, condition, ms = 30_000) {
  const deadline = Date.now() + ms;
  let last;
  while (Date.now() < deadline) {
    try {
      if (await condition()) return;
    } catch (e) {
      last = e;
    }
    await sleep(20);
  }
  throw new Error(`not within ${ms} ms: ${what}${last ? ` (${last.message})` : ""}`);
}

// A check that neither ends nor fails is a failure, too.
function bounded(check) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`no end after ${LONGEST_MS} ms`)), LONGEST_MS);
  });
  return Promise.race([check(), late]).finally(() => clearTimeout(timer));
}

// `checks`: [name, function], run in their order.
async function main(subject, version, checks) {
  console.log(`${subject} ${version} on node ${process.version}`);
  const only = process.argv[2];
  let passed = 0;
  let failed = 0;
  for (const [name, check] of checks) {
    if (only && !name.includes(only)) continue;
    try {
      await bounded(check);
      passed += 1;
      console.log(`test ${subject}: ${name} ... ok`);
    } catch (e) {
      failed += 1;
      console.log(`test ${subject}: ${name} ... FAILED\n${e.stack}`);
    }
  }
  console.log(`\ntest result: ${failed ? "FAILED" : "ok"}. ${passed} passed; ${failed} failed`);
  process.exit(failed ? 1 : 0);
}

// kill -9 of the node on this port; `nodes` are those of the rig.
function kill(nodes, port) {
  process.kill(nodes.find((node) => node.port === Number(port)).pid, "SIGKILL");
}

// What a client over TLS shows, and whom it believes.
function shown() {
  const read = (name) => fs.readFileSync(path.join(rig.secured.folder, name));
  return { ca: read("ca.crt"), cert: read("client.crt"), key: read("client.key") };
}

// Has the sentinels over TLS put another primary in the place of theirs, if they can by now; only the rig's own user may.
function switchOver() {
  const port = rig.secured.admin;
  const said = execFileSync("redis-cli", ["-p", `${port}`, "SENTINEL", "FAILOVER", rig.secured.name], { encoding: "utf8" });
  return said.trim() === "OK";
}

module.exports = { assert, rig, shown, switchOver, sleep, until, main, kill };

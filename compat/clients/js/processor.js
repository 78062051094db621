// Consumers that share the partitions over a Blob checkpoint store.
"use strict";

const assert = require("node:assert/strict");
const readline = require("node:readline");
const { execFileSync, spawn } = require("node:child_process");
const { earliestEventPosition, latestEventPosition } = require("@azure/event-hubs");
const { BlobCheckpointStore } = require("@azure/eventhubs-checkpointstore-blob");
const { ContainerClient } = require("@azure/storage-blob");
const { GROUP, Hub, PARTITIONS, RECEIVE_TIMEOUT, data, sleep, to, until } = require("./hub.js");

// How fast the consumers balance, in milliseconds.
const INTERVAL = 1_000;
const EXPIRY = 5_000;
// Two claims, one a round, a whole second that Last-Modified is rounded to, and
// what a busy machine takes.
const ROUNDS = 5 * INTERVAL;

// Balancer is a consumer of all partitions, and what it has received.
class Balancer {
  static async start(hub, strategy, checkpoint = () => true, startPosition = earliestEventPosition) {
    const container = new ContainerClient(process.env.MILLRACE_STORAGE_CONNECTION_STRING, hub.name);
    await container.createIfNotExists();
    const b = new Balancer();
    b.store = new BlobCheckpointStore(container);
    b.active = new Set(); // partitions it reads
    b.got = {}; // texts by partition
    b.events = {}; // sequence numbers by partition
    b.errors = [];
    b.reasons = []; // why partitions were closed
    hub.options.loadBalancingOptions = {
      strategy, updateIntervalInMs: INTERVAL, partitionOwnershipExpirationIntervalInMs: EXPIRY,
    };
    b.client = hub.consumer(GROUP, b.store);
    b.subscription = b.client.subscribe(
      {
        processInitialize: async (context) => void b.active.add(context.partitionId),
        processClose: async (reason, context) => {
          b.active.delete(context.partitionId);
          b.reasons.push(reason);
        },
        processError: async (err) => void b.errors.push(err),
        processEvents: async (events, context) => {
          for (const e of events) {
            (b.got[context.partitionId] ??= []).push(e.body.toString());
            (b.events[context.partitionId] ??= []).push(e.sequenceNumber);
            if (checkpoint(e)) await context.updateCheckpoint(e);
          }
        },
      },
      { startPosition, maxWaitTimeInSeconds: 1, maxBatchSize: 100, skipParsingBodyAsJson: true },
    );
    return b;
  }

  bodies() {
    return Object.values(this.got).flat();
  }

  // owners counts the partitions of each owner in the checkpoint store.
  async owners() {
    const list = await this.store.listOwnership(this.client.fullyQualifiedNamespace, this.client.eventHubName, GROUP);
    const count = {};
    for (const o of list) count[o.ownerId] = (count[o.ownerId] ?? 0) + 1;
    return count;
  }

  async close() {
    await this.subscription.close();
    await this.client.close();
  }
}

// sendToAll sends n events to every partition and returns their bodies.
async function sendToAll(hub, label, n) {
  const want = [];
  for (let p = 0; p < PARTITIONS; p++) {
    const texts = Array.from({ length: n }, (_, i) => `${label}/${p}/${i}`);
    await hub.send(to(p), ...texts.map(data));
    want.push(...texts);
  }
  return want;
}

async function processor(hub) {
  // The first takes all, so that the second has to steal its share.
  const a = await Balancer.start(hub, "greedy");
  await until("the first owns all", 15_000, () => a.active.size === PARTITIONS);
  const b = await Balancer.start(hub, "balanced");
  await until("two each", 20_000, async () => {
    const owners = await a.owners();
    return a.active.size === 2 && b.active.size === 2 && owners[a.client.identifier] === 2 && owners[b.client.identifier] === 2;
  });
  const want = await sendToAll(hub, "shared", 50);
  await until("all events", RECEIVE_TIMEOUT, () => a.bodies().length + b.bodies().length >= want.length);
  await sleep(2 * INTERVAL); // for copies, which another round of balancing would bring
  assert.equal(a.bodies().length, want.length / 2);
  assert.equal(b.bodies().length, want.length / 2);
  assert.deepEqual([...a.bodies(), ...b.bodies()].sort(), want.sort());
  assert.deepEqual(a.reasons, ["OwnershipLost", "OwnershipLost"]);
  assert.deepEqual(a.errors.map((e) => e.code), ["ReceiverDisconnectedError", "ReceiverDisconnectedError"]);
  assert.deepEqual(b.errors, []);
  const seen = `${a.errors[0].name} ${a.errors[0].code}`;
  await a.close();
  await b.close();
  return `the robbed one sees ${seen} and closes with OwnershipLost`;
}

// runVictim is the process that takeover kills: a consumer that tells how many
// partitions it owns and what it has received, until it dies or its parent does.
async function runVictim(name) {
  process.stdin.on("end", () => process.exit(1)).resume();
  const b = await Balancer.start(new Hub(name), "greedy");
  for (;;) {
    console.log(b.active.size, b.bodies().length);
    await sleep(20);
  }
}

async function takeover(hub) {
  const child = spawn(process.execPath, [require.main.filename, "victim", hub.name], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    let owned = 0;
    let received = 0;
    readline.createInterface(child.stdout).on("line", (line) => ([owned, received] = line.split(" ").map(Number)));
    await until("the first owns all", 15_000, () => owned === PARTITIONS);
    const b = await Balancer.start(hub, "balanced");
    await until("two each", 20_000, () => owned === 2 && b.active.size === 2);
    const before = await sendToAll(hub, "before", 10);
    const half = before.length / 2;
    await until("both have their events", RECEIVE_TIMEOUT, () => received === half && b.bodies().length === half);
    child.kill("SIGKILL");
    const killed = Date.now();
    const after = await sendToAll(hub, "after", 10);
    await until("the other owns all", EXPIRY + ROUNDS, async () => {
      return b.active.size === PARTITIONS && (await b.owners())[b.client.identifier] === PARTITIONS;
    });
    const took = Date.now() - killed;
    assert.ok(took > EXPIRY - 3 * INTERVAL, `the other took over after ${took} ms: the expiry did not count`);
    await until("every later event", RECEIVE_TIMEOUT, () => {
      const got = new Set(b.bodies());
      return after.every((text) => got.has(text));
    });
    assert.deepEqual(b.errors, []);
    await b.close();
  } finally {
    child.kill("SIGKILL");
  }
  return `expiry ${EXPIRY / 1000}s, all partitions within ${(EXPIRY + ROUNDS) / 1000}s`;
}

async function checkpoint(hub) {
  const first = 10; // events
  const marked = 5; // the one that is checkpointed
  const later = 6; // events that come while nobody reads
  await sendToAll(hub, "first", first);
  const a = await Balancer.start(hub, "greedy", (e) => e.sequenceNumber === marked);
  await until("the first events", RECEIVE_TIMEOUT, () => a.bodies().length === PARTITIONS * first);
  await a.close();
  assert.deepEqual(a.errors, []);
  await sendToAll(hub, "later", later);
  const b = await Balancer.start(hub, "greedy");
  const rest = first - marked - 1 + later;
  await until("the rest", RECEIVE_TIMEOUT, () => b.bodies().length >= PARTITIONS * rest);
  await b.close();
  const want = Array.from({ length: rest }, (_, i) => marked + 1 + i);
  assert.deepEqual(b.events, { 0: want, 1: want, 2: want, 3: want });
}

// seekTo moves the checkpoints of the hub's default group with the command.
function seekTo(hub, position, ...more) {
  const { MILLRACE_BINARY, MILLRACE_STORAGE_CONNECTION_STRING } = process.env;
  execFileSync(MILLRACE_BINARY, [
    "seek", "--connection-string", hub.connection, "--storage-connection-string", MILLRACE_STORAGE_CONNECTION_STRING,
    "--hub", hub.name, "--container", hub.name, "--to", position, ...more,
  ]);
}

// startsAt wants a consumer, whose default is the end, to get the events from some
// numbers on, by partition, up to an end.
async function startsAt(hub, starts, end) {
  const want = Object.fromEntries(starts.map((n, p) => [p, Array.from({ length: end - n }, (_, i) => n + i)]));
  const b = await Balancer.start(hub, "greedy", () => true, latestEventPosition);
  await until("the events", RECEIVE_TIMEOUT, () => b.bodies().length >= Object.values(want).flat().length);
  await b.close();
  assert.deepEqual(b.errors, []);
  assert.deepEqual(b.events, want);
}

async function seek(hub) {
  const first = 10; // events
  const later = 2;
  await sendToAll(hub, "first", first);
  ["earliest", "#4", "latest", "@7"].forEach((position, p) => seekTo(hub, position, "--partition", String(p)));
  await sendToAll(hub, "later", later);
  await startsAt(hub, [0, 4, first, 7], first + later);
  seekTo(hub, "#2");
  await startsAt(hub, [2, 2, 2, 2], first + later);
}

module.exports = { cases: { processor, takeover, checkpoint, seek }, runVictim };

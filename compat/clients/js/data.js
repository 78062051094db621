// Sending, receiving, positions and properties.
"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");
const { randomFillSync } = require("node:crypto");
const { earliestEventPosition, latestEventPosition } = require("@azure/event-hubs");
const { PARTITIONS, Reader, data, sleep, to, until, wantTexts } = require("./hub.js");

// The hash that the SDK's buffered producer uses; the package does not export it.
const { mapPartitionKeyToId } = require(
  path.join(path.dirname(require.resolve("@azure/event-hubs")), "impl", "partitionKeyToIdMapper.js"),
);

const raw = { skipParsingBodyAsJson: true };

async function single(hub) {
  const want = [];
  for (let i = 0; i < 10; i++) {
    want.push(`single-${i}`);
    await hub.send(to(0), data(want[i]));
  }
  wantTexts(await hub.all(0, raw), want);
}

async function batch(hub) {
  const want = ["before"];
  await hub.send(to(1), data("before"));
  const batch = await hub.producer().createBatch(to(1));
  for (let i = 0; i < 500; i++) {
    want.push(`batch-${i}-${"x".repeat(i)}`);
    assert.ok(batch.tryAdd(data(want.at(-1))), "the batch is full");
  }
  assert.equal(batch.count, 500);
  await hub.producer().sendBatch(batch);
  const events = await hub.all(1, raw);
  wantTexts(events, want);
  const times = new Set(events.slice(1).map((e) => e.enqueuedTimeUtc.getTime()));
  assert.equal(times.size, 1, "one batch has one enqueued time");
}

async function partitionId(hub) {
  await hub.send(to(2), data("to two"), data("also"));
  wantTexts(await hub.all(2, raw), ["to two", "also"]);
  const others = ["0", "1", "3"].map((id) => new Reader(hub.consumer(), id, earliestEventPosition));
  await Promise.all(others.map((r) => r.silent(700)));
}

async function partitionKey(hub) {
  const keys = ["7", "131", "7149583486996073602", "FWfAT", "sOdeEAsyQoEuEFPGerWO", "!c*_!I@1^c", "$0cb",
    "-4189260826195535198", "p4*!jioeO/z-!-;w:dh", "alphabet", "clé à molette", "名前"];
  const want = {};
  const got = {};
  for (let round = 0; round < 3; round++) {
    for (const key of keys) {
      const texts = [`${key}/${round}/a`, `${key}/${round}/b`];
      await hub.send({ partitionKey: key }, ...texts.map(data));
      (want[key] ??= []).push(...texts);
    }
  }
  for (let p = 0; p < PARTITIONS; p++) {
    for (const e of await hub.all(p, raw)) {
      assert.equal(p, mapPartitionKeyToId(e.partitionKey, PARTITIONS), `partition of key ${e.partitionKey}`);
      (got[e.partitionKey] ??= []).push(e.body.toString());
    }
  }
  assert.deepEqual(got, want);
}

async function roundRobin(hub) {
  for (let i = 0; i < 8; i++) await hub.send({}, data(`${i}`), data(`${i}`), data(`${i}`));
  const seen = [];
  const spread = [];
  for (let p = 0; p < PARTITIONS; p++) {
    const texts = (await hub.all(p, raw)).map((e) => e.body.toString());
    assert.ok(texts.length > 0, `nothing in partition ${p}`);
    for (let i = 0; i < texts.length; i += 3) {
      assert.deepEqual(texts.slice(i, i + 3), [texts[i], texts[i], texts[i]], "a batch is torn");
      seen.push(texts[i]);
    }
    spread.push(texts.length / 3);
  }
  assert.deepEqual(seen.sort(), ["0", "1", "2", "3", "4", "5", "6", "7"]);
  return `batches per partition: ${spread.join(" ")}`;
}

async function oneByte(hub) {
  await hub.send(to(0), { body: Buffer.from([0xff]) }, { body: Buffer.alloc(0) });
  const events = await hub.all(0, raw);
  assert.deepEqual(events.map((e) => e.body), [Buffer.from([0xff]), Buffer.alloc(0)]);
  return "1 byte and 0 bytes";
}

async function large(hub) {
  const body = randomFillSync(Buffer.alloc(900_000));
  await hub.send(to(3), { body }, data("after"));
  const events = await hub.all(3, raw);
  assert.equal(events.length, 2);
  assert.ok(body.equals(events[0].body), "the event came back changed");
  assert.equal(events[1].body.toString(), "after");
}

async function positions(hub) {
  const n = 6;
  for (let i = 0; i < n; i++) {
    await hub.send(to(0), data(`${i}`));
    await sleep(20); // so that no two share a millisecond
  }
  const events = await hub.all(0);
  assert.equal(events.length, n);
  const { offset, sequenceNumber, enqueuedTimeUtc } = events[3];
  const starts = [
    ["earliest", earliestEventPosition, 0],
    ["offset, exclusive", { offset }, 4],
    ["offset, inclusive", { offset, isInclusive: true }, 3],
    ["sequence number, exclusive", { sequenceNumber }, 4],
    ["sequence number, inclusive", { sequenceNumber, isInclusive: true }, 3],
    ["enqueued time between two", { enqueuedOn: new Date(enqueuedTimeUtc - 5) }, 3],
    ["enqueued time", { enqueuedOn: enqueuedTimeUtc }, 4],
  ];
  for (const [name, position, first] of starts) {
    const reader = new Reader(hub.consumer(), "0", position);
    const got = await reader.next(n - first);
    assert.deepEqual(got.map((e) => e.sequenceNumber), [0, 1, 2, 3, 4, 5].slice(first), name);
    await reader.close();
  }
  await afterTheLast(hub, events.at(-1));
  await latest(hub);
  return "the SDK has no inclusive enqueued time";
}

// afterTheLast starts readers after the last event: they get the next one.
async function afterTheLast(hub, { offset, sequenceNumber, enqueuedTimeUtc }) {
  const readers = [{ sequenceNumber }, { offset }, { enqueuedOn: enqueuedTimeUtc }].map(
    (position) => new Reader(hub.consumer(), "0", position),
  );
  await Promise.all(readers.map((r) => r.silent(700)));
  await hub.send(to(0), data("next"));
  for (const r of readers) {
    assert.equal((await r.next(1))[0].sequenceNumber, sequenceNumber + 1, "after the last event");
    await r.close();
  }
}

// latest attaches at the end. Since nothing tells when that has happened, marks
// are sent until some arrive: no older event may, and no mark be left out.
async function latest(hub) {
  const reader = new Reader(hub.consumer(), "0", latestEventPosition, raw);
  let marks = 0;
  await until("marks", 20_000, async () => {
    await hub.send(to(0), data(`mark ${marks++}`));
    await sleep(50);
    return reader.events.length >= 3 || reader.errors.length;
  });
  const texts = (await reader.next(3)).map((e) => e.body.toString());
  assert.match(texts[0], /^mark \d+$/, "an old event arrived");
  const first = Number(texts[0].slice(5));
  assert.deepEqual(texts, [first, first + 1, first + 2].map((i) => `mark ${i}`));
}

async function hubProperties(hub) {
  for (const client of [hub.properties(), hub.producer()]) {
    const { name, createdOn, partitionIds } = await client.getEventHubProperties();
    assert.deepEqual({ name, partitionIds }, { name: hub.name, partitionIds: ["0", "1", "2", "3"] });
    const age = Date.now() - createdOn.getTime();
    assert.ok(age > -1000 && age < 600_000, `created at ${createdOn}`);
    assert.deepEqual(await client.getPartitionIds(), partitionIds);
  }
}

async function partitionProperties(hub) {
  const of = { eventHubName: hub.name, partitionId: "1" };
  assert.deepEqual(await hub.properties().getPartitionProperties("1"), {
    ...of, beginningSequenceNumber: -1, lastEnqueuedSequenceNumber: -1, lastEnqueuedOffset: "-1",
    lastEnqueuedOnUtc: new Date("0001-01-01T00:00:00Z"), isEmpty: true,
  });
  await hub.send(to(1), data("a"), data("b"), data("c"));
  const last = (await hub.all(1)).at(-1);
  assert.deepEqual(await hub.producer().getPartitionProperties("1"), {
    ...of, beginningSequenceNumber: 0, lastEnqueuedSequenceNumber: 2, lastEnqueuedOffset: last.offset,
    lastEnqueuedOnUtc: last.enqueuedTimeUtc, isEmpty: false,
  });
}

async function lastEnqueued(hub) {
  await hub.send(to(0), data("a"), data("b"), data("c"));
  const options = { trackLastEnqueuedEventProperties: true, maxBatchSize: 1 };
  const reader = new Reader(hub.consumer(), "0", earliestEventPosition, options);
  await reader.next(3);
  const check = async (sequenceNumber) => {
    const p = await hub.properties().getPartitionProperties("0");
    const { retrievedOn, ...rest } = reader.lastEnqueued;
    assert.deepEqual(rest, { sequenceNumber, offset: p.lastEnqueuedOffset, enqueuedOn: p.lastEnqueuedOnUtc });
    assert.ok(Math.abs(Date.now() - retrievedOn) < 60_000, `retrieved at ${retrievedOn}`);
  };
  await check(2);
  await hub.send(to(0), data("d"));
  await reader.next(1);
  await check(3);
  await reader.close();
  // Who does not ask gets none.
  const plain = new Reader(hub.consumer(), "0", earliestEventPosition);
  await plain.next(4);
  assert.equal(plain.lastEnqueued?.sequenceNumber, undefined);
}

module.exports.cases = {
  single, batch, "partition-id": partitionId, "partition-key": partitionKey, "round-robin": roundRobin,
  "one-byte": oneByte, large, positions, "hub-properties": hubProperties,
  "partition-properties": partitionProperties, "last-enqueued": lastEnqueued,
};

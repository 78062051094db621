// The event hub of a case, and what cases do with it.
"use strict";

const assert = require("node:assert/strict");
const { EventHubConsumerClient, EventHubProducerClient, earliestEventPosition } = require("@azure/event-hubs");

const PARTITIONS = 4;
const GROUP = EventHubConsumerClient.defaultConsumerGroupName;

// How long an event may take to arrive that is there, in milliseconds.
const RECEIVE_TIMEOUT = 20_000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// until waits for a condition.
async function until(what, limit, done) {
  const deadline = Date.now() + limit;
  while (!(await done())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${limit} ms`);
    await sleep(20);
  }
}

class Hub {
  constructor(name, connection = process.env.MILLRACE_CONNECTION_STRING, options = {}) {
    this.name = name;
    this.connection = connection;
    this.options = options;
    this.open = [];
  }

  producer() {
    if (!this.sender) {
      this.sender = new EventHubProducerClient(this.connection, this.name, this.options);
      this.open.push(this.sender);
    }
    return this.sender;
  }

  // consumer opens a consumer on a connection of its own: the SDK reads a
  // partition once per client.
  consumer(group = GROUP, ...store) {
    const client = new EventHubConsumerClient(group, this.connection, this.name, ...store, this.options);
    this.open.push(client);
    return client;
  }

  properties() {
    this.manager ??= this.consumer();
    return this.manager;
  }

  // send sends events as one batch.
  async send(where, ...events) {
    await this.producer().sendBatch(events, where);
  }

  // all receives every event of a partition, as its properties count them, and
  // checks that sequence numbers have no gap, offsets grow and time never runs
  // backwards.
  async all(partition, options = {}) {
    const id = String(partition);
    const p = await this.properties().getPartitionProperties(id);
    if (p.isEmpty) return [];
    const reader = new Reader(this.consumer(), id, earliestEventPosition, options);
    const events = await reader.next(p.lastEnqueuedSequenceNumber - p.beginningSequenceNumber + 1);
    await reader.close();
    events.forEach((e, i) => {
      assert.equal(e.sequenceNumber, p.beginningSequenceNumber + i, "sequence number");
      assert.match(e.offset, /^\d+$/);
      assert.ok(Math.abs(Date.now() - e.enqueuedTimeUtc) < 300_000, `enqueued at ${e.enqueuedTimeUtc}`);
      if (i > 0) {
        assert.ok(BigInt(e.offset) > BigInt(events[i - 1].offset), "offsets grow");
        assert.ok(e.enqueuedTimeUtc >= events[i - 1].enqueuedTimeUtc, "time runs forwards");
      }
    });
    return events;
  }

  async close() {
    await Promise.allSettled(this.open.reverse().map((client) => client.close()));
  }
}

// Reader is a subscription to one partition that keeps what arrives.
class Reader {
  constructor(client, partition, startPosition, options = {}) {
    this.client = client;
    this.events = [];
    this.errors = [];
    this.reason = undefined;
    this.subscription = client.subscribe(
      partition,
      {
        processEvents: async (events, context) => {
          this.events.push(...events);
          // The SDK fills this object with every event that arrives.
          this.lastEnqueued = context.lastEnqueuedEventProperties && { ...context.lastEnqueuedEventProperties };
        },
        processError: async (err) => void this.errors.push(err),
        processClose: async (reason) => void (this.reason = reason),
      },
      { startPosition, maxBatchSize: 100, maxWaitTimeInSeconds: 1, ...options },
    );
  }

  // next returns exactly n events, or fails.
  async next(n) {
    await until(`${n} events`, RECEIVE_TIMEOUT, () => this.errors.length || this.events.length >= n).catch((err) => {
      throw new Error(`${err.message}: ${this.events.length} arrived`);
    });
    if (this.errors.length) throw this.errors[0];
    return this.events.splice(0, n);
  }

  // error returns the error that the subscription meets.
  async error() {
    await until("an error", RECEIVE_TIMEOUT, () => this.errors.length || this.events.length);
    if (!this.errors.length) throw new Error("an event arrived where an error was due");
    return this.errors[0];
  }

  // silent fails if an event or an error arrives within some milliseconds.
  async silent(ms) {
    await sleep(ms);
    if (this.errors.length) throw this.errors[0];
    assert.deepEqual(this.events.map((e) => [e.sequenceNumber, String(e.body)]), [], "events that were not due");
  }

  close() {
    return this.client.close();
  }
}

const data = (text) => ({ body: Buffer.from(text) });
const to = (partition) => ({ partitionId: String(partition) });

// wantTexts checks the bodies of events, in order.
function wantTexts(events, want) {
  assert.deepEqual(events.map((e) => (Buffer.isBuffer(e.body) ? e.body.toString() : e.body)), want);
}

module.exports = { GROUP, Hub, PARTITIONS, RECEIVE_TIMEOUT, Reader, data, sleep, to, until, wantTexts };

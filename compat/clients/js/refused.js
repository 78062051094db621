// What the client makes of the broker's refusals.
"use strict";

const assert = require("node:assert/strict");
const { earliestEventPosition } = require("@azure/event-hubs");
const { GROUP, Reader, data, to } = require("./hub.js");

// The SDK tries most errors again, half a minute later: the cases want the first.
const ONCE = { retryOptions: { maxRetries: 0 } };

const describe = (err) => [err.name, err.code].filter(Boolean).join(" ");

// refused checks that an operation ends with an error of the code and text.
async function refused(operation, promise, code, text) {
  const err = await promise.then(
    () => assert.fail(`${operation}: it succeeded`),
    (e) => e,
  );
  const message = `${operation}: ${describe(err)}: ${err.message}`;
  assert.equal(err.name, "MessagingError", message);
  assert.equal(err.code, code, message);
  assert.match(err.message, text);
  return `${operation}: ${describe(err)}`;
}

// meets opens a reader and returns the error that it meets, as a rejection.
async function meets(hub, partition, position = earliestEventPosition, options = {}, group = GROUP) {
  const reader = new Reader(hub.consumer(group), partition, position, options);
  const err = await reader.error();
  await reader.close();
  throw err;
}

async function refusedAll(...list) {
  const out = [];
  for (const r of list) out.push(await r);
  return out.join("; ");
}

async function wrongKey(hub) {
  hub.options = ONCE;
  hub.connection = hub.connection.replace(/SharedAccessKey=[^;]*/, "SharedAccessKey=wrong");
  return refusedAll(
    refused("send", hub.send(to(0), data("x")), "UnauthorizedError", /InvalidSignature/),
    refused("receive", meets(hub, "0"), "UnauthorizedError", /InvalidSignature/),
    refused("properties", hub.properties().getEventHubProperties(), "UnauthorizedError", /InvalidSignature/),
  );
}

async function unknownHub(hub) {
  hub.options = ONCE;
  hub.name += "-absent";
  return refusedAll(
    refused("send", hub.send(to(0), data("x")), "MessagingEntityNotFoundError", /could not be found/),
    refused("receive", meets(hub, "0"), "MessagingEntityNotFoundError", /could not be found/),
    refused("properties", hub.properties().getEventHubProperties(), "MessagingEntityNotFoundError", /could not be found/),
  );
}

async function unknownGroup(hub) {
  hub.options = ONCE;
  return refused("receive", meets(hub, "0", earliestEventPosition, {}, "absent"), "MessagingEntityNotFoundError", /could not be found/);
}

async function badPartition(hub) {
  hub.options = ONCE;
  const text = /The specified partition is invalid/;
  return refusedAll(
    refused("send", hub.send(to(99), data("x")), "ArgumentOutOfRangeError", text),
    refused("receive", meets(hub, "99"), "ArgumentOutOfRangeError", text),
    refused("properties", hub.properties().getPartitionProperties("99"), "ArgumentOutOfRangeError", text),
  );
}

async function listenOnlySend(hub) {
  hub.options = ONCE;
  hub.connection = process.env.MILLRACE_LISTEN_CONNECTION_STRING;
  await hub.properties().getEventHubProperties();
  return refused("send", hub.send(to(0), data("x")), "UnauthorizedError", /Unauthorized access\. 'Send' claim\(s\) are required/);
}

async function sendOnlyReceive(hub) {
  hub.options = ONCE;
  hub.connection = process.env.MILLRACE_SEND_CONNECTION_STRING;
  await hub.send(to(0), data("x"));
  return refused("receive", meets(hub, "0"), "UnauthorizedError", /Unauthorized access\. 'Listen' claim\(s\) are required/);
}

async function sixthReceiver(hub) {
  hub.options = ONCE;
  await hub.send(to(0), data("x"));
  const readers = [];
  for (let i = 0; i < 5; i++) {
    readers.push(new Reader(hub.consumer(), "0", earliestEventPosition));
    await readers[i].next(1);
  }
  const detail = await refused("receive", meets(hub, "0"), "QuotaExceededError",
    /Exceeded the maximum number of allowed receivers per partition in a consumer group which is 5/);
  // A place that comes free can be taken.
  await readers[2].close();
  await new Reader(hub.consumer(), "0", earliestEventPosition).next(1);
  return detail;
}

async function ownerLevel(hub) {
  hub.options = ONCE;
  await hub.send(to(0), data("x"));
  const owners = [];
  for (const options of [{}, { ownerLevel: 1 }, { ownerLevel: 2 }]) {
    owners.push(new Reader(hub.consumer(), "0", earliestEventPosition, options));
    await owners.at(-1).next(1);
  }
  const lost = (reader) => reader.error().then((err) => Promise.reject(err));
  const code = "ReceiverDisconnectedError";
  const detail = await refusedAll(
    refused("loser", lost(owners[1]), code, /with higher epoch of '2' is created/),
    refused("loser without level", lost(owners[0]), code, /with higher epoch of '1' is created/),
    refused("lower level", meets(hub, "0", earliestEventPosition, { ownerLevel: 1 }), code, /with increasing epoch value/),
    refused("no level", meets(hub, "0"), code, /At least one receiver for the endpoint is created with epoch of '2'/),
  );
  assert.equal(owners[1].reason, "OwnershipLost");
  // The owner keeps the partition all the while.
  await hub.send(to(0), data("y"));
  assert.equal((await owners[2].next(1))[0].body.toString(), "y");
  return detail;
}

async function tooLarge(hub) {
  hub.options = ONCE;
  const batch = await hub.producer().createBatch(to(0));
  assert.equal(batch.maxSizeInBytes, 1 << 20);
  assert.equal(batch.tryAdd({ body: Buffer.alloc(1 << 20) }), false, "a batch takes an event of 1 MiB");
  await hub.send(to(0), { body: Buffer.alloc((1 << 20) - 512) });
  const detail = await refused("sendBatch([event])", hub.send(to(0), { body: Buffer.alloc(1 << 20) }), "MessageTooLargeError", /exceeds the limit/);
  // The link stays open.
  await hub.send(to(0), data("after"));
  assert.equal((await hub.all(0)).length, 2);
  return `tryAdd: false; ${detail}`;
}

async function beyondEnd(hub) {
  hub.options = ONCE;
  await hub.send(to(0), data("0"), data("1"), data("2"));
  return refusedAll(
    refused("offset", meets(hub, "0", { offset: "1000" }), "ArgumentError",
      /The supplied offset '1000' is invalid\. The last offset in the system is '2'/),
    refused("sequence number", meets(hub, "0", { sequenceNumber: 1000 }), "ArgumentError",
      /The supplied sequence number '1000' is invalid\. The last sequence number in the system is '2'/),
  );
}

module.exports.cases = {
  "wrong-key": wrongKey, "unknown-hub": unknownHub, "unknown-group": unknownGroup, "bad-partition": badPartition,
  "listen-only-send": listenOnlySend, "send-only-receive": sendOnlyReceive, "sixth-receiver": sixthReceiver,
  "owner-level": ownerLevel, "too-large": tooLarge, "beyond-end": beyondEnd,
};

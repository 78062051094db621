// TLS and WebSocket. NODE_EXTRA_CA_CERTS, which run.sh sets, is what trusts the
// broker's authority.
"use strict";

const assert = require("node:assert/strict");
const { randomFillSync } = require("node:crypto");
const { rootCertificates } = require("node:tls");
const { spawnSync } = require("node:child_process");
const WebSocket = require("ws");
const { Hub, data, to } = require("./hub.js");

// roundTrip sends some events, a large one among them, and receives them.
async function roundTrip(hub) {
  const large = randomFillSync(Buffer.alloc(500_000));
  await hub.send(to(0), data("one"), { body: large });
  await hub.send(to(0), data("three"));
  const events = await hub.all(0, { skipParsingBodyAsJson: true });
  assert.equal(events.length, 3);
  assert.equal(events[0].body.toString(), "one");
  assert.ok(large.equals(events[1].body), "the event came back changed");
  assert.equal(events[2].body.toString(), "three");
}

async function tls(hub) {
  hub.connection = process.env.MILLRACE_TLS_CONNECTION_STRING;
  await roundTrip(hub);
  // Without the authority there must be no connection.
  const env = { ...process.env, NODE_EXTRA_CA_CERTS: "" };
  const child = spawnSync(process.execPath, [require.main.filename, "without-trust", hub.name], { env, timeout: 30_000 });
  assert.match(child.stdout.toString(), /certificate/, "without the authority");
}

// runWithoutTrust is a process that does not trust the authority: it tells how
// asking for the hub fails.
async function runWithoutTrust(name) {
  const hub = new Hub(name, process.env.MILLRACE_TLS_CONNECTION_STRING, { retryOptions: { maxRetries: 0 } });
  try {
    await hub.producer().getPartitionIds();
    console.log("connected");
  } catch (err) {
    console.log(err.message);
  }
}

async function webSocket(hub) {
  hub.connection = process.env.MILLRACE_TLS_CONNECTION_STRING;
  let opened = 0;
  class Counted extends WebSocket {
    constructor(...args) {
      super(...args);
      opened++;
    }
  }
  const options = {
    customEndpointAddress: `sb://${process.env.MILLRACE_WS_ENDPOINT}`,
    webSocketOptions: { webSocket: Counted, webSocketConstructorOptions: {} },
  };
  Object.assign(hub.options, options);
  await roundTrip(hub);
  assert.equal(opened, 3, "WebSockets of a producer and two consumers");
  const distrust = new Hub(hub.name, hub.connection, {
    ...options,
    retryOptions: { maxRetries: 0 },
    webSocketOptions: { webSocket: Counted, webSocketConstructorOptions: { ca: [...rootCertificates] } },
  });
  await assert.rejects(distrust.producer().getPartitionIds(), /certificate/);
}

module.exports = { cases: { tls, websocket: webSocket }, runWithoutTrust };

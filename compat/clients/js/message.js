// Bodies and properties of every type that the client can send.
"use strict";

const assert = require("node:assert/strict");
const { types } = require("rhea"); // the SDK's AMQP library: its wrappers name an AMQP type
const { to } = require("./hub.js");

const moment = new Date("2026-02-03T04:05:06.789Z");
const uuid = Buffer.from("00112233445566778899aabbccddeeff", "hex");

// scalars are values as they are sent, and as they come back where the library
// reads them as something else. They are made anew for each event: the library
// writes the section's descriptor into a wrapped body.
const scalars = () => [
  [true], [false], [null],
  [0], [7], [4294967294], [2 ** 40], [-7], [-2147483647], [-(2 ** 40)], [1.5], [2.5e-300],
  ["Grüße, 世界"], ["x".repeat(300)], [""],
  [Buffer.from([0, 1, 255])], [Buffer.alloc(300)],
  [moment],
  [types.wrap_ubyte(200), 200], [types.wrap_ushort(60000), 60000], [types.wrap_uint(7), 7],
  [types.wrap_ulong(7), 7], [types.wrap_byte(-100), -100], [types.wrap_short(-30000), -30000],
  [types.wrap_int(-7), -7], [types.wrap_long(-7), -7], [types.wrap_float(1.5), 1.5], [types.wrap_double(-2.25e300), -2.25e300],
  [types.wrap_uuid(uuid), uuid], [types.wrap_symbol("symbol"), "symbol"], [types.wrap_timestamp(moment.getTime()), moment],
].map(([sent, back = sent]) => ({ sent, back }));

const composites = [
  [], ["list", 1, ["nested"], null], { key: "value", nested: { list: [1, 2] } },
].map((value) => ({ sent: value, back: value }));

async function bodies(hub) {
  const events = [];
  const want = [];
  const expect = (event, bodyType, body) => {
    events.push(event);
    want.push({ bodyType, body });
  };
  // EventData: data, in JSON unless it is bytes.
  for (const body of ["text", 5, true, { a: [1, "two", null] }, ["x"]]) expect({ body }, "data", body);
  expect({ body: Buffer.from("not json") }, "data", Buffer.from("not json"));
  expect({ body: new Uint8Array([1, 2, 255]) }, "data", Buffer.from([1, 2, 255]));
  // AmqpAnnotatedMessage: any section.
  expect({ bodyType: "data", body: Buffer.from([0, 255]) }, "data", Buffer.from([0, 255]));
  expect({ bodyType: "sequence", body: ["text", -5, true, null, 2.5, ["nested"]] }, "sequence", ["text", -5, true, null, 2.5, ["nested"]]);
  for (const { sent, back } of [...scalars(), ...composites]) {
    // Of a binary value, and of what it has no name for, the SDK says that it is data.
    expect({ bodyType: "value", body: sent }, Buffer.isBuffer(back) ? "data" : "value", back);
  }
  await hub.send(to(0), ...events);
  const got = await hub.all(0);
  assert.equal(got.length, want.length);
  got.forEach((e, i) => {
    assert.deepEqual({ bodyType: e.getRawAmqpMessage().bodyType, body: e.body }, want[i], `body ${i}`);
  });
  return "data, sequence, value; the SDK sends one data section only";
}

// asRead is what the SDK makes of dates and bytes in EventData.properties: it walks
// through them as through objects.
function asRead(value) {
  if (value instanceof Date) return value.getTime();
  return Buffer.isBuffer(value) ? { ...value } : value;
}

async function properties(hub) {
  const name = (i) => `property ${i}`;
  const values = scalars();
  const sent = Object.fromEntries(values.map((s, i) => [name(i), s.sent]));
  const back = Object.fromEntries(values.map((s, i) => [name(i), s.back]));
  const read = Object.fromEntries(values.map((s, i) => [name(i), asRead(s.back)]));
  const fields = {
    absoluteExpiryTime: moment.getTime(), creationTime: moment.getTime() - 1000, contentEncoding: "gzip",
    contentType: "application/json", groupId: "group", groupSequence: 9, replyTo: "reply-to", replyToGroupId: "group 2",
    subject: "subject", to: "to",
  };
  const ids = ["text", 5, uuid, types.wrap_uuid(uuid)]; // bytes are sent as a UUID too
  const messages = ids.map((id) => ({
    bodyType: "data", body: Buffer.from("body"), applicationProperties: sent, footer: { "x-foot": "note" },
    messageAnnotations: { "x-mine": 5, "x-more": "text" }, properties: { ...fields, messageId: id, correlationId: id },
  }));
  const plain = { body: "body", contentType: "text/plain", correlationId: "correlation", messageId: "message", properties: sent };
  await hub.send(to(0), ...messages, plain);
  const got = await hub.all(0);
  assert.equal(got.length, messages.length + 1);
  [...ids.slice(0, 3), uuid].forEach((id, i) => {
    const m = got[i].getRawAmqpMessage();
    assert.deepEqual(m.applicationProperties, back);
    assert.deepEqual(m.properties, { ...fields, messageId: id, correlationId: id });
    assert.deepEqual(m.footer, { "x-foot": "note" });
    assert.equal(m.messageAnnotations["x-mine"], 5);
    assert.equal(m.messageAnnotations["x-more"], "text");
    assert.equal(got[i].systemProperties["x-more"], "text");
  });
  const { body, contentType, correlationId, messageId } = got.at(-1);
  assert.deepEqual({ ...plain, properties: read }, { body, contentType, correlationId, messageId, properties: got.at(-1).properties });
  return `${values.length} types and encodings`;
}

module.exports.cases = { bodies, properties };

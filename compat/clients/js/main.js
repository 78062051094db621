// The client program of the JavaScript SDK, @azure/event-hubs: it runs the cases
// that it is asked for against the broker that its environment names, and prints
// a line of JSON for each. ../../README.md has the rules.
"use strict";

const { Hub, sleep } = require("./hub.js");
const { runIdempotent } = require("./idempotent.js");
const { runVictim } = require("./processor.js");
const { runWithoutTrust } = require("./transport.js");

// What a case may take before it counts as hanging, in milliseconds.
const CASE_TIMEOUT = 75_000;

const cases = {
  ...require("./data.js").cases,
  ...require("./message.js").cases,
  ...require("./processor.js").cases,
  ...require("./transport.js").cases,
  ...require("./refused.js").cases,
};

async function report(name) {
  const line = { case: name, ok: false, detail: "" };
  const hub = new Hub(process.env.MILLRACE_HUB + name);
  try {
    if (!cases[name]) throw new Error("this client does not know the case");
    const hangs = new Promise((_, reject) => {
      setTimeout(() => reject(new Error("the case hangs")), CASE_TIMEOUT).unref();
    });
    const outcome = (await Promise.race([cases[name](hub), hangs])) ?? "";
    if (outcome.skip) line.skip = outcome.skip;
    else line.detail = outcome;
    line.ok = !outcome.skip;
  } catch (err) {
    line.detail = err.stack && !err.code ? err.stack : `${err.name} ${err.code ?? ""}: ${err.message}`;
  }
  await Promise.race([hub.close(), sleep(10_000)]);
  process.stdout.write(JSON.stringify(line) + "\n");
}

async function main(args) {
  if (args[0] === "victim") return runVictim(args[1]);
  if (args[0] === "idempotent") return runIdempotent(args[1], Number(args[2]));
  if (args[0] === "without-trust") return runWithoutTrust(args[1]);
  for (const name of args) await report(name);
}

// A rejection that nobody awaits is a fault of the SDK or of a case: it is told,
// and does not end the other cases.
process.on("unhandledRejection", (err) => console.error("unhandled:", err));

main(process.argv.slice(2)).then(
  () => process.stdout.write("", () => process.exit(0)),
  (err) => {
    console.error(err);
    process.exit(1);
  },
);

// The buffered producer with idempotent retries: it sends numbered events to a
// partition, whatever happens to its connections.
"use strict";

const { EventHubBufferedProducerClient } = require("@azure/event-hubs");
const { sleep, until } = require("./hub.js");

// runIdempotent prints a line of JSON for each batch that the SDK calls published
// or failed, and one at the end. When the SDK gives events up, whose numbers it
// would give to others then, they are left, and a new client goes on.
async function runIdempotent(hub, count) {
  const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
  let reported = 0;
  let failed = false;
  const open = () =>
    new EventHubBufferedProducerClient(process.env.MILLRACE_CONNECTION_STRING, hub, {
      enableIdempotentRetries: true,
      maxWaitTimeInMs: 5,
      retryOptions: { maxRetries: 1000, retryDelayInMs: 20, maxRetryDelayInMs: 100, timeoutInMs: 1_500 },
      onSendEventsSuccessHandler: ({ events }) => {
        reported += events.length;
        print({ acknowledged: events.map((e) => e.body) });
      },
      onSendEventsErrorHandler: ({ events, error }) => {
        const last = error.errors?.at(-1) ?? error; // of all attempts
        reported += events.length;
        failed = true;
        print({ failed: events.map((e) => e.body), error: `${last.code ?? last.name}: ${last.message}` });
      },
    });
  const leave = (client) => Promise.race([client.close({ flush: false }).catch(() => {}), sleep(1_000)]);
  let client = open();
  for (let i = 0; i < count; ) {
    const end = Math.min(count, i + 1 + (i % 5)); // batches differ in size
    try {
      for (; i < end; i++) await client.enqueueEvent({ body: i }, { partitionId: "0" });
    } catch (error) { // it asks for the hub's partitions first
      print({ failed: [], error: `${error.code ?? error.name}: ${error.message}` });
      failed = true;
      if (reported === i) await sleep(50);
    }
    await until("the end of a batch", 60_000, () => reported >= i);
    if (failed) {
      await leave(client);
      failed = false;
      client = open();
    }
  }
  await leave(client);
  print({ done: true });
}

module.exports = { runIdempotent };

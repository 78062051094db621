"""Receives readings and keeps a checkpoint after each:

    consumer.py pinned PARTITION     from one partition, chosen by hand
    consumer.py balanced             from its share of the partitions
"""

import asyncio
import json
import sys

from azure.eventhub.aio import EventHubConsumerClient
from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore

from environment import CONNECTION, CONTAINER, HUB, STORAGE, note, report

# A consumer that is gone is replaced within this many seconds, not the SDK's minute.
EXPIRY = 5


async def received(context, event):
    if event is None:
        return
    reading = json.loads(event.body_as_str())["reading"]
    report(received=reading, partition=context.partition_id, sequence=event.sequence_number, offset=event.offset)
    await context.update_checkpoint(event)


async def claimed(context):
    report(claimed=context.partition_id)


async def lost(context, reason):
    report(lost=context.partition_id, reason=reason.name)


async def failed(context, error):
    note("%s: %r" % (context and context.partition_id, error))


async def main(how, partition=None):
    store = BlobCheckpointStore.from_connection_string(STORAGE, CONTAINER)
    client = EventHubConsumerClient.from_connection_string(
        CONNECTION, "$Default", eventhub_name=HUB, checkpoint_store=store,
        load_balancing_interval=1, partition_ownership_expiration_interval=EXPIRY,
        retry_total=20, retry_backoff_max=0.5)
    async with client:
        where = {"partition_id": partition} if how == "pinned" else {}
        report(started=how)
        await client.receive(
            on_event=received, on_partition_initialize=claimed, on_partition_close=lost, on_error=failed,
            starting_position="-1", max_wait_time=5, **where)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

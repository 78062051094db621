"""The two steps by hand, in Python: each event is claimed in Redis before its effect, and
marked after it, beside the checkpoints. README.md says how to start it."""

import argparse
import asyncio
import json
import logging
import os
import signal
import uuid

import redis.asyncio as redis
from azure.core.exceptions import ResourceExistsError
from azure.eventhub.aio import EventHubConsumerClient
from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore
from azure.storage.blob.aio import ContainerClient

from accident import Accident

LEASE = 10.0  # seconds that a claim lasts: how long the events of a dead process wait
KEEP = 7 * 24 * 3600.0  # seconds that a mark is kept: longer than anybody may send an event again
PAUSE = 0.2  # seconds before anything is tried again
CHECKPOINT_EVENTS = 10

# Marking and giving up look at the token first. The lease may be over, and another may
# have the claim by now, or be done with it: what is his is not ours to change. Looking
# and changing must be one step, or he comes in between. So they are scripts.
MARK = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= 'done ' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], 'done ' .. ARGV[1], 'PX', ARGV[2])
return 1
"""
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"

log = logging.getLogger("consumer")


class Ledger:
    """What is claimed, by whom and until when, and what is done."""

    def __init__(self, client):
        self.client = client
        self.mark_script, self.release_script = client.register_script(MARK), client.register_script(RELEASE)

    async def claim(self, key, token):
        """Says "claimed", "done", or "busy" if another has the claim."""
        # NX: there is one winner, however many ask. PX: if it dies, another gets a turn.
        if await self.client.set(key, token, nx=True, px=int(LEASE * 1000)):
            return "claimed"
        holder = await self.client.get(key)
        return "done" if holder and holder.startswith("done ") else "busy"

    async def mark(self, key, token):
        """Tries until Redis has answered, for only this process knows what is done."""
        while True:
            try:
                return await self.mark_script(keys=[key], args=[token, int(KEEP * 1000)]) == 1
            except redis.RedisError as error:
                log.warning("%s is done, and can't be marked; trying again: %s", key, error)
                await asyncio.sleep(PAUSE)

    async def release(self, key, token):
        try:
            await self.release_script(keys=[key], args=[token])
        except redis.RedisError:
            pass  # then the claim ends with its lease


async def once(ledger, key, effect):
    """Has the effect happen, unless it has, and returns when it is done by whomever."""
    while True:
        token = uuid.uuid4().hex  # of this try: an answer that is lost is nobody's claim
        try:
            state = await ledger.claim(key, token)
        except redis.RedisError as error:  # no claim, no effect: wait for Redis
            log.warning("%s can't be claimed; trying again: %s", key, error)
            state = "busy"
        if state == "done":
            return
        if state == "busy":
            # Not ours, and not done: to go on, and to write a checkpoint beyond it, would
            # lose it if he dies. It is marked soon, or its lease ends, and it is ours.
            await asyncio.sleep(PAUSE)
            continue
        try:
            # It ends well before the lease does, or two would be at it.
            await asyncio.wait_for(effect(), LEASE / 2)
        except Exception as error:
            # Let it be tried again at once, by us or another: not to have failed halfway
            # is the effect's own duty. (An event that can never succeed holds its
            # partition here. The consumer in Go puts it aside.)
            log.warning("%s failed; trying again: %r", key, error)
            await ledger.release(key, token)
            await asyncio.sleep(PAUSE)
            continue
        if await ledger.mark(key, token):
            return
        log.error("%s was done after the lease was over: it may happen twice", key)


class Consumer:
    def __init__(self, options, client):
        self.group, self.ledger = options.group, Ledger(client) if options.once else None
        self.redis, self.effects = client, os.environ.get("EFFECTS", "effects")
        self.accident = Accident(os.environ.get("DIE", ""))
        self.running = True
        self.work = set()  # what is at work
        self.since = {}  # events since the last checkpoint, for each partition

    async def effect(self, body):
        """A counter for each event, which shows those that have had it twice."""
        await self.redis.hincrby(self.effects, body["event_id"], 1)
        self.accident.after_effect()

    async def on_event(self, partition, event):
        if not self.running:
            return  # to be told to stop loses nothing: there are no more checkpoints
        body = json.loads(event.body_as_str())
        effect = lambda: self.effect(body)
        # The application's id, which is there before the event is sent. Without one it is
        # the partition's and event.sequence_number, which know nothing of copies.
        key = f"once-py:{partition.fully_qualified_namespace}/{partition.eventhub_name}/{self.group}/{body['event_id']}"
        task = asyncio.create_task(once(self.ledger, key, effect) if self.ledger else effect())
        self.work.add(task)
        task.add_done_callback(self.work.discard)
        # Shielded: when the partition goes to another, the SDK cancels this. The effect is
        # not to be left half done. It has its claim: the other waits for its mark.
        await asyncio.shield(task)
        # Only now, and in the order of the partition: all before this event is done, too.
        n = self.since[partition.partition_id] = self.since.get(partition.partition_id, 0) + 1
        if n >= CHECKPOINT_EVENTS:
            self.accident.at_checkpoint()
            await partition.update_checkpoint(event)
            self.since[partition.partition_id] = 0

    async def on_error(self, partition, error):
        # The SDK closes the partition then, and opens it again at its checkpoint.
        log.warning("partition %s: %r", partition.partition_id if partition else "?", error)


async def checkpoints(storage, container="checkpoints"):
    """Opens the checkpoints, and makes their container, which the SDK's store does not."""
    async with ContainerClient.from_connection_string(storage, container) as client:
        try:
            await client.create_container()
        except ResourceExistsError:
            pass
    return BlobCheckpointStore.from_connection_string(storage, container)


async def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--hub", default="trial")
    flags.add_argument("--group", default="$Default")
    flags.add_argument("--once", action="store_true", help="keep a ledger in Redis, and process each event once")
    options = flags.parse_args()
    logging.basicConfig(level=logging.WARNING)
    client = redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    consumer = Consumer(options, client)
    store = await checkpoints(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
    hub = EventHubConsumerClient.from_connection_string(
        os.environ["EVENTHUB_CONNECTION_STRING"], options.group, eventhub_name=options.hub,
        checkpoint_store=store, load_balancing_interval=1, partition_ownership_expiration_interval=4)
    async with client, store, hub:
        receiving = asyncio.create_task(hub.receive(consumer.on_event, on_error=consumer.on_error, starting_position="-1"))

        def stop():
            consumer.running = False
            receiving.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        try:
            await receiving
        except asyncio.CancelledError:
            pass
        if consumer.work:
            await asyncio.wait(consumer.work, timeout=10)  # what is at work is finished


if __name__ == "__main__":
    asyncio.run(main())

"""Processors that share a hub through the Blob checkpoint store."""

import asyncio
import re
import sys
import time

from azure.eventhub import EventData

from registry import case
from world import bodies, check, numbers, same, stop, until

PARTITIONS = ["0", "1", "2", "3"]
INTERVAL = 1  # seconds between two looks at who owns what


class Processor:
    """A consumer with a checkpoint store: it takes its share of the partitions."""

    def __init__(self, world, store, expiry, checkpoint_at=None, starting_position="-1"):
        self.owned, self.events, self.errors = set(), {p: [] for p in PARTITIONS}, []
        self._checkpoint_at = checkpoint_at
        self._client = world.consumer(
            checkpoint_store=store, load_balancing_interval=INTERVAL, partition_ownership_expiration_interval=expiry)
        self._task = asyncio.create_task(self._client.receive(
            on_event=self._event, on_error=self._error, on_partition_initialize=self._claimed,
            on_partition_close=self._lost, starting_position=starting_position))

    async def _event(self, context, event):
        events = self.events[context.partition_id]
        events.append(event)
        if len(events) == self._checkpoint_at:
            await context.update_checkpoint(event)

    async def _error(self, context, error):
        self.errors.append((context and context.partition_id, error))

    async def _claimed(self, context):
        self.owned.add(context.partition_id)

    async def _lost(self, context, _reason):
        self.owned.discard(context.partition_id)

    def texts(self):
        return {p: [b.decode() for b in bodies(events)] for p, events in self.events.items()}

    def total(self):
        return sum(len(events) for events in self.events.values())

    async def close(self):
        await stop(self._client, self._task)


async def container(world):
    store = world.store()
    await world.sdk.make_container(store)
    return store


async def owners(world, store):
    """Who owns which partition, as the store has it."""
    namespace = world.namespace
    listed = await store.list_ownership(namespace, world.hub, "$Default")
    return {o["partition_id"]: o["owner_id"] for o in listed}


async def send_to_all(producer, texts):
    for p in PARTITIONS:
        await producer.send_batch([EventData(t) for t in texts], partition_id=p)


@case("processor", limit=120)
async def two_share(world):
    store, producer = await container(world), world.producer()
    one, two = (world.keep(Processor(world, s, expiry=20)) for s in (store, world.store()))

    def shared():
        return len(one.owned) == len(two.owned) == 2 and one.owned | two.owned == set(PARTITIONS)
    await until(shared, lambda: "two partitions each: %s and %s" % (one.owned, two.owned), 40)
    same(len(set((await owners(world, store)).values())), 2, "owners in the store")

    texts = ["event %d" % i for i in range(40)]
    await send_to_all(producer, texts[:20])
    await send_to_all(producer, texts[20:])
    await until(lambda: one.total() + two.total() >= 160, lambda: "%d + %d of 160 events" % (one.total(), two.total()), 30)
    await asyncio.sleep(2 * INTERVAL)  # the share lasts, and nothing comes twice
    check(shared(), "the partitions moved: %s and %s", one.owned, two.owned)
    for p in PARTITIONS:
        mine, other = (one, two) if p in one.owned else (two, one)
        same(mine.texts()[p], texts, "events of partition %s at its owner" % p)
        same(other.texts()[p], [], "events of partition %s at the other" % p)


@case("takeover", limit=120)
async def takeover(world):
    expiry = 5
    store, producer = await container(world), world.producer()
    other = await asyncio.create_subprocess_exec(
        sys.executable, sys.argv[0], "--processor", world.hub, str(expiry), stdout=asyncio.subprocess.DEVNULL)
    try:
        survivor = world.keep(Processor(world, store, expiry))
        deadline = time.monotonic() + 40
        while True:
            by = list((await owners(world, store)).values())
            if len(by) == 4 and len(set(by)) == 2 and len(survivor.owned) == 2:
                break
            check(time.monotonic() < deadline, "the two do not share: %s", by)
            check(other.returncode is None, "the other ended with %s", other.returncode)
            await asyncio.sleep(0.1)
        await send_to_all(producer, ["before"])
        await until(lambda: survivor.total() == 2, lambda: "%d events of its two partitions" % survivor.total())
    finally:
        other.kill()  # SIGKILL: it releases nothing
    killed = time.monotonic()
    await other.wait()
    await send_to_all(producer, ["after"])
    await until(lambda: survivor.owned == set(PARTITIONS), lambda: "all partitions: %s" % survivor.owned, 60)
    took = time.monotonic() - killed
    # The last renewal is as old as a round, its time is in whole seconds, and the
    # expiry is seen in a round: the SDK's rounds are up to a fifth longer than said.
    check(took < expiry + 2 * 1.2 * INTERVAL + 1, "the takeover took %.1f s with an expiry of %s s", took, expiry)
    same(len(set((await owners(world, store)).values())), 1, "owners in the store")
    # The other checkpointed nothing, so its partitions are read from their start.
    want = {p: ["before", "after"] for p in PARTITIONS}
    await until(lambda: survivor.total() >= 8, lambda: "events: %s" % survivor.texts(), 30)
    same(survivor.texts(), want, "events")


async def alone(world, expiry):
    """The other processor of takeover, in a process of its own until it is killed."""
    Processor(world, world.store(), expiry)
    await asyncio.sleep(300)


@case("checkpoint", limit=120)
async def checkpoint(world):
    store, producer = await container(world), world.producer()
    texts = ["event %d" % i for i in range(20)]
    await send_to_all(producer, texts)
    first = world.keep(Processor(world, store, expiry=20, checkpoint_at=12))
    await until(lambda: first.total() >= 80, lambda: "%d of 80 events" % first.total(), 30)
    same(first.texts(), {p: texts for p in PARTITIONS}, "events of the first")
    await first.close()

    kept = await store.list_checkpoints(world.namespace, world.hub, "$Default")
    same(sorted((c["partition_id"], c["sequence_number"], c["offset"]) for c in kept),
         [(p, 11, first.events[p][11].offset) for p in PARTITIONS], "checkpoints")

    again = world.keep(Processor(world, world.store(), expiry=20))
    await until(lambda: again.total() >= 32, lambda: "%d of 32 events" % again.total(), 30)
    await asyncio.sleep(1)
    same(again.texts(), {p: texts[12:] for p in PARTITIONS}, "events of the second")
    same({p: numbers(again.events[p]) for p in PARTITIONS}, {p: list(range(12, 20)) for p in PARTITIONS}, "numbers")


async def seek_to(world, position, *more):
    """Moves the checkpoints of the hub's default group with the command. Receivers
    that are closed may be there for a moment yet."""
    # Where the client goes to another endpoint, its namespace is named without the port.
    connection = re.sub("//[^:/;]*", "//" + world.namespace.split(":")[0], world.env["MILLRACE_CONNECTION_STRING"], count=1)
    command = [world.env["MILLRACE_BINARY"], "seek", "--connection-string", connection,
               "--storage-connection-string", world.env["MILLRACE_STORAGE_CONNECTION_STRING"],
               "--hub", world.hub, "--container", world.container, "--to", position, *more]
    deadline = time.monotonic() + 20
    while True:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        said, _ = await process.communicate()
        if process.returncode == 0:
            return
        check(time.monotonic() < deadline, "seek to %s: %s", position, said)
        await asyncio.sleep(0.2)


async def starts_at(world, starts, end):
    """Wants a consumer, whose default is the end, to get the events from some numbers
    on, by partition, up to an end."""
    want = {p: list(range(n, end)) for p, n in zip(PARTITIONS, starts)}
    p = world.keep(Processor(world, world.store(), expiry=20, starting_position="@latest"))
    await until(lambda: p.total() >= sum(map(len, want.values())), lambda: "events: %s" % p.texts(), 30)
    await asyncio.sleep(INTERVAL)  # for events that should not come
    await p.close()
    same({p: numbers(events) for p, events in p.events.items()}, want, "numbers")


@case("seek", limit=120)
async def seek(world):
    await container(world)
    producer = world.producer()
    await send_to_all(producer, ["event %d" % i for i in range(10)])
    for p, position in zip(PARTITIONS, ["earliest", "#4", "latest", "@7"]):
        await seek_to(world, position, "--partition", p)
    await send_to_all(producer, ["later", "latest"])
    await starts_at(world, [0, 4, 10, 7], 12)
    await seek_to(world, "#2")
    await starts_at(world, [2, 2, 2, 2], 12)

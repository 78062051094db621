"""Where reading starts, and what the broker tells of an event hub and a partition."""

import asyncio
from datetime import datetime, timedelta, timezone

from azure.eventhub import EventData

from registry import case
from world import attached, bodies, check, numbers, same


@case("positions", limit=120)
async def positions(world):
    producer = world.producer()
    for i in range(6):
        await producer.send_event(EventData("event %d" % i), partition_id="1")
        await asyncio.sleep(0.03)  # enqueued times tell them apart
    all_of_it = world.reader("1")
    events = await all_of_it.exactly(6)
    await all_of_it.close()
    third, last = events[2], events[5]
    same(len({e.enqueued_time for e in events}), 6, "different enqueued times")
    between = third.enqueued_time + (events[3].enqueued_time - third.enqueued_time) / 2

    at_once = asyncio.Semaphore(4)  # of the five receivers that a group may have

    async def starts_at(first, what, position, inclusive):
        async with at_once:
            reader = world.reader("1", position, starting_position_inclusive=inclusive)
            same(numbers(await reader.exactly(6 - first, quiet=0.1)), list(range(first, 6)), what)
            await reader.close()

    await asyncio.gather(*(starts_at(first, what, position, inclusive) for what, position, inclusive, first in [
        ("earliest", "-1", False, 0),
        ("earliest, inclusive", "-1", True, 0),
        ("offset", third.offset, False, 3),
        ("offset, inclusive", third.offset, True, 2),
        ("sequence number", third.sequence_number, False, 3),
        ("sequence number, inclusive", third.sequence_number, True, 2),
        ("sequence number -1", -1, False, 0),
        ("enqueued time", third.enqueued_time, False, 3),
        ("enqueued time, inclusive", third.enqueued_time, True, 2),
        ("enqueued time between two events", between, False, 3),
        ("enqueued time before all", third.enqueued_time - timedelta(days=9), False, 0),
    ]))

    # These start behind all events, so that only what is sent later arrives.
    after = {
        "latest": world.reader("1", "@latest"),
        "after the last offset": world.reader("1", last.offset),
        "after the last sequence number": world.reader("1", last.sequence_number),
        "after the last time": world.reader("1", last.enqueued_time),
    }
    await attached(after.values())
    await asyncio.sleep(0.5)
    same({what: numbers(r.events) for what, r in after.items()}, {what: [] for what in after}, "before more is sent")
    await producer.send_batch([EventData("event 6"), EventData("event 7")], partition_id="1")
    for what, reader in after.items():
        same(bodies(await reader.exactly(2, quiet=0.1)), [b"event 6", b"event 7"], what)
        same(numbers(reader.events), [6, 7], what)


@case("hub-properties")
async def hub_properties(world):
    now = datetime.now(timezone.utc)
    for client in (world.producer(), world.consumer()):
        properties = await client.get_eventhub_properties()
        same(properties["eventhub_name"], world.hub, "name")
        same(properties["partition_ids"], ["0", "1", "2", "3"], "partition ids")
        made = properties["created_at"]
        check(timedelta(0) < now - made < timedelta(hours=1), "created at %s, now %s", made, now)
        same(await client.get_partition_ids(), ["0", "1", "2", "3"], "partition ids alone")


@case("partition-properties")
async def partition_properties(world):
    producer, consumer = world.producer(), world.consumer()
    empty = {
        "eventhub_name": world.hub, "id": "3", "is_empty": True, "beginning_sequence_number": -1,
        "last_enqueued_sequence_number": -1, "last_enqueued_offset": "-1",
        "last_enqueued_time_utc": datetime(1, 1, 1, tzinfo=timezone.utc),
    }
    same(await consumer.get_partition_properties("3"), empty, "empty partition")
    for i in range(7):
        await producer.send_event(EventData("event %d" % i), partition_id="3")
    last = (await world.reader("3").exactly(7))[-1]
    for client in (producer, consumer):
        same(await client.get_partition_properties("3"), {
            "eventhub_name": world.hub, "id": "3", "is_empty": False, "beginning_sequence_number": 0,
            "last_enqueued_sequence_number": 6, "last_enqueued_offset": last.offset,
            "last_enqueued_time_utc": last.enqueued_time,
        }, "partition with events")


@case("last-enqueued")
async def last_enqueued(world):
    producer = world.producer()
    await producer.send_batch([EventData("event %d" % i) for i in range(5)], partition_id="0")
    tracking = world.reader("0", track_last_enqueued_event_properties=True)
    plain = world.reader("0")
    last = (await tracking.exactly(5))[-1]
    now = datetime.now(timezone.utc)
    for metrics in tracking.metrics:
        same((metrics["sequence_number"], metrics["offset"], metrics["enqueued_time"]),
             (last.sequence_number, last.offset, last.enqueued_time), "the last event")
        check(abs(now - metrics["retrieval_time"]) < timedelta(seconds=30), "retrieved at %s", metrics["retrieval_time"])

    await producer.send_event(EventData("event 5"), partition_id="0")
    newer = (await tracking.exactly(6))[-1]
    same(tracking.metrics[-1]["sequence_number"], 5, "the last event's number, after one more")
    same(tracking.metrics[-1]["enqueued_time"], newer.enqueued_time, "the last event's time, after one more")
    await plain.want(6)
    check(not any(plain.metrics), "metrics that nobody asked for: %r", plain.metrics)

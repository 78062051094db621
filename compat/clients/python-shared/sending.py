"""What is sent arrives: single events, batches, partitions, keys, sizes."""

import asyncio
import math
import os

from azure.eventhub import EventData
from azure.eventhub._buffered_producer._partition_resolver import PartitionResolver, generate_hash_code

from registry import case
from world import attached, bodies, check, numbers, same, until

PARTITIONS = ["0", "1", "2", "3"]


@case("single")
async def single(world):
    sent = [b"event %d" % i for i in range(20)]
    producer = world.producer()
    for body in sent:
        await producer.send_event(EventData(body), partition_id="0")
    events = await world.reader("0").exactly(len(sent))
    same(bodies(events), sent, "bodies in order")
    same(numbers(events), list(range(len(sent))), "sequence numbers")
    same([e.offset for e in events], [str(n) for n in numbers(events)], "offsets")
    times = [e.enqueued_time for e in events]
    same(times, sorted(times), "enqueued times")


@case("batch", limit=90)
async def batch(world):
    producer = world.producer()
    sent = [b"event %d " % i + bytes(i % 300) for i in range(1000)]
    many = await producer.create_batch(partition_id="1")
    for body in sent:
        many.add(EventData(body))
    await producer.send_batch(many)

    # The fullest batch that the client makes is one that the broker takes.
    full = await producer.create_batch(partition_id="1")
    filled = 0
    try:
        while True:
            full.add(EventData(bytes([filled % 256]) * 5000))
            filled += 1
    except ValueError:
        check(full.max_size_in_bytes - full.size_in_bytes < 6000, "the batch holds %d bytes", full.size_in_bytes)
    await producer.send_batch(full)

    events = await world.reader("1").exactly(len(sent) + filled)
    same(numbers(events), list(range(len(events))), "sequence numbers")
    same(bodies(events[:len(sent)]), sent, "bodies in order")
    same(bodies(events[len(sent):]), [bytes([i % 256]) * 5000 for i in range(filled)], "bodies of the full batch")
    same(len({e.enqueued_time for e in events[:len(sent)]}), 1, "enqueued times in a batch")
    same(len({e.enqueued_time for e in events[len(sent):]}), 1, "enqueued times in the full batch")


@case("partition-id")
async def partition_id(world):
    producer = world.producer()
    sent = [b"a", b"b", b"c"]
    await producer.send_batch([EventData(body) for body in sent], partition_id="2")
    readers = {p: world.reader(p) for p in PARTITIONS}
    same(bodies(await readers["2"].want(len(sent))), sent, "partition 2")
    await attached(readers.values())
    await asyncio.sleep(0.5)
    same({p: len(r.events) for p, r in readers.items()}, {"0": 0, "1": 0, "2": 3, "3": 0}, "events by partition")
    same([p for r in readers.values() for p in r.errors], [], "errors")
    for p in PARTITIONS:
        same((await producer.get_partition_properties(p))["is_empty"], p != "2", "partition %s is empty" % p)


@case("partition-key")
async def partition_key(world):
    producer = world.producer()
    keys = ["key-%d" % i for i in range(12)] + ["7", "131", "FWfAT", "sOdeEAsyQoEuEFPGerWO", "Straße", "x" * 120]
    for key in keys:
        keyed = await producer.create_batch(partition_key=key)
        keyed.add(EventData(key + " 0"))
        keyed.add(EventData(key + " 1"))
        await producer.send_batch(keyed)
        await producer.send_event(EventData(key + " 2"), partition_key=key)

    readers = {p: world.reader(p) for p in PARTITIONS}
    await until(lambda: sum(len(r.events) for r in readers.values()) >= 3 * len(keys), "the events of all keys")
    where = {}
    for p, reader in readers.items():
        for event in reader.events:
            key = event.partition_key.decode()
            where.setdefault(key, []).append((p, event.body_as_str()))
    resolver, apart = PartitionResolver(PARTITIONS), 0
    for key in keys:
        expected = PARTITIONS[of_hash(key)]
        same(where.get(key), [(expected, "%s %d" % (key, i)) for i in range(3)], "events of key %s" % key)
        apart += resolver.get_partition_id_by_partition_key(key) != expected
    if apart:
        return "the buffered producer's resolver names another partition for %d of %d keys: " \
            "it floors where .NET and JavaScript truncate" % (apart, len(keys))


def of_hash(key):
    """The partition that the SDK's hash names. The remainder is the truncated one, as in
    the .NET and JavaScript SDKs; this SDK's resolver takes the floored one, which differs
    from theirs for negative hashes."""
    data = key.encode().decode("latin-1")  # the hash is over the UTF-8 bytes
    return abs(int(math.fmod(generate_hash_code(data), len(PARTITIONS))))


@case("round-robin")
async def round_robin(world):
    producer = world.producer()
    for i in range(8):
        await producer.send_batch([EventData("%d %d" % (i, j)) for j in range(3)])
    readers = {p: world.reader(p) for p in PARTITIONS}
    spread = {}
    for p, reader in readers.items():
        texts = [e.body_as_str() for e in await reader.exactly(6)]
        whole = [texts[i].split()[0] for i in (0, 3)]
        same(texts, ["%s %d" % (b, j) for b in whole for j in range(3)], "batches of partition %s" % p)
        spread[p] = whole
    same(sorted(b for whole in spread.values() for b in whole), [str(i) for i in range(8)], "batches")


@case("one-byte")
async def one_byte(world):
    producer = world.producer()
    sent = [b"x", b"", b"\x00"]
    for body in sent:
        await producer.send_event(EventData(body), partition_id="0")
    await producer.send_batch([EventData(body) for body in sent], partition_id="0")
    events = await world.reader("0").exactly(2 * len(sent))
    same([list(e.body) for e in events], [[body] for body in sent + sent], "data sections")


@case("large")
async def large(world):
    producer = world.producer()
    sent = [os.urandom(900_000) for _ in range(3)]
    await producer.send_event(EventData(sent[0]), partition_id="0")
    await producer.send_batch([EventData(sent[1])], partition_id="0")
    await producer.send_event(EventData(sent[2]), partition_id="0")
    events = await world.reader("0").exactly(3)
    check(bodies(events) == sent, "the events came back changed: %s bytes", [len(b) for b in bodies(events)])

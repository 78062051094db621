"""Bodies and properties of every type come back as they were sent."""

import uuid
from datetime import datetime, timezone

from azure.eventhub.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType

import wire
from registry import case
from world import check, same

ID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
TIME = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=timezone.utc)
MILLIS = int(TIME.timestamp() * 1000)


def typed(name, value):
    """A value of an AMQP type that Python has no type for."""
    return {"TYPE": name, "VALUE": value}


# What the SDK sends, and what it shows of it when it comes back.
SCALARS = {
    "null": (typed("NULL", None), None),
    "true": (True, True), "false": (False, False),
    "ubyte": (typed("UBYTE", 255), 255), "byte": (typed("BYTE", -128), -128),
    "ushort": (typed("USHORT", 65535), 65535), "short": (typed("SHORT", -32768), -32768),
    "uint": (typed("UINT", 2**32 - 1), 2**32 - 1), "uint-small": (typed("UINT", 7), 7), "uint0": (typed("UINT", 0), 0),
    "int": (-2**31, -2**31), "int-small": (-1, -1),
    "ulong": (typed("ULONG", 2**64 - 1), 2**64 - 1), "ulong-small": (typed("ULONG", 7), 7),
    "ulong0": (typed("ULONG", 0), 0),
    "long": (typed("LONG", -2**63), -2**63), "long-small": (typed("LONG", -1), -1),
    "float": (typed("FLOAT", 0.5), 0.5), "double": (-1e300, -1e300),
    "timestamp": (TIME, MILLIS), "timestamp-before-1970": (typed("TIMESTAMP", -62135596800000), -62135596800000),
    "uuid": (ID, ID),
    "binary": (b"\x00\xff", b"\x00\xff"), "binary-large": (bytes(300), bytes(300)),
    "string": ("Grüße 🌊", "Grüße 🌊".encode()), "string-empty": ("", b""), "string-large": ("s" * 300, b"s" * 300),
    "symbol": (typed("SYMBOL", b"sym"), b"sym"),
}
ARRAY = typed("ARRAY", [typed("LONG", 300), typed("LONG", 70000)])


@case("bodies", limit=90)
async def all_bodies(world):
    scalars = [sent for sent, _ in SCALARS.values()]
    shown = [got for _, got in SCALARS.values()]
    datas = {
        "one section": [b"data"], "two sections": [b"first", b"second"],
        "many sections": [b"%d" % i for i in range(300)], "empty sections": [b"", b"x", b""],
    }
    sequences = {
        "one sequence": ([[1, "two", b"three"]], [[1, b"two", b"three"]]),
        "two sequences": ([[1, 2], [{"a": [None, True]}]], [[1, 2], [{b"a": [None, True]}]]),
        "every type": ([scalars], [shown]),
        "an empty sequence": ([[], [1]], [[], [1]]),
    }
    # A value of this SDK is sent only if Python takes it for true.
    values = {
        "true": (True, True), "int": (70000, 70000), "negative int": (-5, -5), "double": (2.5, 2.5),
        "string": ("text", b"text"), "long string": ("t" * 70000, b"t" * 70000), "binary": (b"\x01\x02", b"\x01\x02"),
        "uuid": (ID, ID), "timestamp": (TIME, MILLIS),
        "list of every type": (scalars, shown),
        "map": ({"k": {"l": [1, 2]}, 3: "v"}, {b"k": {b"l": [1, 2]}, 3: b"v"}),
        "map of every type": ({k: v for k, (v, _) in SCALARS.items()}, {k.encode(): v for k, (_, v) in SCALARS.items()}),
        "array in a list": ([ARRAY], [[300, 70000]]),
        "described": ((typed("SYMBOL", b"a:type"), "x"), b"x"),
    }
    messages = [("data: " + what, AmqpAnnotatedMessage(data_body=b), AmqpMessageBodyType.DATA, b) for what, b in datas.items()]
    messages += [("sequence: " + what, AmqpAnnotatedMessage(sequence_body=b), AmqpMessageBodyType.SEQUENCE, got)
                 for what, (b, got) in sequences.items()]
    messages += [("value: " + what, AmqpAnnotatedMessage(value_body=b), AmqpMessageBodyType.VALUE, got)
                 for what, (b, got) in values.items()]

    for what, event, _message, kind, shown in await there_and_back(world, messages):
        same(event.body_type, kind, what)
        got = event.raw_amqp_message.body
        same(got if kind == AmqpMessageBodyType.VALUE else list(got), shown, what)


@case("properties", limit=90)
async def all_properties(world):
    fields = {
        "message_id": "id-1", "user_id": b"\x01user", "to": "to", "subject": "subject", "reply_to": "reply-to",
        "correlation_id": "correlation", "content_type": "application/json", "content_encoding": "gzip",
        "absolute_expiry_time": MILLIS + 1000, "creation_time": MILLIS, "group_id": "group", "group_sequence": 12345,
        "reply_to_group_id": "reply-group",
    }
    ids = {"string": "id", "uuid": ID, "ulong": 2**63, "small ulong": 5, "binary": b"\x00\x01"}
    application = {"p-" + name: sent for name, (sent, _) in SCALARS.items()}
    annotations = {"x-opt-own": "value", "x-own-int": 5, "own": typed("ULONG", 9), "x-opt-map": {"a": [1, "b"]}}
    messages = [
        ("application properties", dict(application_properties=application)),
        ("message properties", dict(properties=fields)),
        ("few message properties", dict(properties={"content_type": "text/plain"})),
        ("annotations", dict(annotations=annotations)),
        ("footer and delivery annotations", dict(footer={"x-opt-foot": "note"}, delivery_annotations={"x-opt-hop": 1})),
        ("header", dict(header={"durable": True, "priority": 7, "time_to_live": 90000})),
        ("everything", dict(application_properties=application, properties=fields, annotations=annotations,
                            footer={"x-opt-foot": "note"}, delivery_annotations={"x-opt-hop": 1})),
    ]
    messages += [("id: " + what, dict(properties={"message_id": v, "correlation_id": v})) for what, v in ids.items()]
    messages = [(what, AmqpAnnotatedMessage(data_body=what, **parts), AmqpMessageBodyType.DATA, parts)
                for what, parts in messages]

    for what, event, _message, _kind, parts in await there_and_back(world, messages):
        raw = event.raw_amqp_message
        same(b"".join(event.body).decode(), what, "body")
        if "application_properties" in parts:
            same(event.properties, {b"p-" + k.encode(): got for k, (_, got) in SCALARS.items()}, what)
        for name, value in parts.get("properties", {}).items():
            same(getattr(raw.properties, name), value.encode() if isinstance(value, str) else value, what + ": " + name)
        for name in parts.get("annotations", {}):
            want = {"x-opt-own": b"value", "x-own-int": 5, "own": 9, "x-opt-map": {b"a": [1, b"b"]}}[name]
            same(raw.annotations.get(name.encode()), want, what + ": " + name)
        if "footer" in parts:
            same(raw.footer, {b"x-opt-foot": b"note"}, what)
            same(raw.delivery_annotations, {b"x-opt-hop": 1}, what)
        check(raw.header is None, "%s: a header came with the event", what)


async def there_and_back(world, messages):
    """Sends each message alone, then all in a batch. Checks that the sections arrive byte
    for byte, and returns each message's parts with the event, twice."""
    wire.keep_payloads()
    producer = world.producer()
    for _, message, _, _ in messages:
        await producer.send_event(message, partition_id="0")
    await producer.send_batch([message for _, message, _, _ in messages], partition_id="0")
    events = await world.reader("0").exactly(2 * len(messages))
    out = []
    for event, (what, *rest) in zip(events, messages + messages):
        same(wire.lasting(wire.received(event)), wire.lasting(wire.encoded(rest[0])), what + ": sections on the wire")
        out.append((what, event, *rest))
    return out

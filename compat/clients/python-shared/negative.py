"""What goes wrong, and the exception that a user sees."""

import re

from azure.eventhub import EventData
from azure.eventhub.exceptions import AuthenticationError, EventHubError

from registry import case
from world import bodies, check, name_of, refusal, same, until

# The SDK retries most refusals; it must not make the cases long.
QUICK = {"retry_total": 1, "retry_backoff_factor": 0.1, "logging_enable": True}


def send(producer, **where):
    return producer.send_event(EventData("refused"), **where)


def outcomes(errors):
    return "; ".join("%s: %s" % (what, name_of(e)) for what, e in errors.items())


@case("wrong-key", limit=90)
async def wrong_key(world):
    producer = world.producer(key="no such key", **QUICK)
    consumer = world.consumer(key="no such key", **QUICK)
    sent = await refusal(send(producer), AuthenticationError)
    asked = await refusal(producer.get_eventhub_properties(), AuthenticationError)
    read = await world.reader("0", client=consumer).error()
    check(isinstance(read, AuthenticationError), "receiving: %r", read)
    return outcomes({"send": sent, "properties": asked, "receive": read})


@case("unknown-hub", limit=90)
async def unknown_hub(world):
    absent = world.hub + "-absent"
    producer, consumer = world.producer(hub=absent, **QUICK), world.consumer(hub=absent, **QUICK)
    errors = {
        "send": await refusal(send(producer), EventHubError),
        "properties": await refusal(producer.get_eventhub_properties(), EventHubError),
        "receive": await world.reader("0", client=consumer).error(),
    }
    # The token is refused already, and the SDK keeps none of what it is told then.
    return refused(errors, "CBS Token authentication failed", "client-error")


@case("unknown-group", limit=90)
async def unknown_group(world):
    consumer = world.consumer(group="absent", **QUICK)
    return await unread(world, consumer, "0", "-1", "could not be found", "not-found", at_token=True)


@case("bad-partition", limit=90)
async def bad_partition(world):
    producer, consumer = world.producer(**QUICK), world.consumer(**QUICK)
    errors = {
        "send": await refusal(send(producer, partition_id="99"), EventHubError),
        "properties": await refusal(producer.get_partition_properties("99"), EventHubError),
    }
    # The first is the SDK's own verdict; of the second it loses the description.
    detail = refused(errors, "Invalid partition 99|Status code: 400", "None|unknown-error|argument-out-of-range")
    wrong = await world.reader("99", client=consumer).error()
    check(isinstance(wrong, ValueError), "receiving: %r", wrong)
    return "%s; receive: %s, from the client" % (detail, name_of(wrong))


@case("listen-only-send", limit=90)
async def listen_only_send(world):
    producer = world.producer("listen", **QUICK)
    await producer.get_eventhub_properties()
    error = await refusal(send(producer, partition_id="0"), EventHubError)
    return refused({"send": error}, "'Send' claim", "unauthorized-access")


@case("send-only-receive", limit=90)
async def send_only_receive(world):
    await send(world.producer("send", **QUICK), partition_id="0")
    return await unread(world, world.consumer("send", **QUICK), "0", "-1", "'Listen' claim", "unauthorized-access")


@case("sixth-receiver", limit=90)
async def sixth_receiver(world):
    await send(world.producer(), partition_id="0")
    five = [world.reader("0") for _ in range(5)]
    for reader in five:
        await reader.want(1)
    detail = await unread(world, world.consumer(**QUICK), "0", "-1",
                          "maximum number of allowed receivers per partition in a consumer group which is 5", "resource-limit-exceeded")
    await five[2].close()  # a place that comes free can be taken
    await world.reader("0").want(1)
    return detail


@case("owner-level", limit=120)
async def owner_level(world):
    producer = world.producer()
    await producer.send_event(EventData("first"), partition_id="0")
    owners = []
    for level in (None, 1, 2):
        owner = world.reader("0", client=world.consumer(**QUICK), **({} if level is None else {"owner_level": level}))
        await owner.want(1)
        owners.append(owner)
    errors = {
        "loser": await owners[1].error(),
        "loser without level": await owners[0].error(),
        "lower level": await world.reader("0", client=world.consumer(**QUICK), owner_level=1).error(),
        "no level": await world.reader("0", client=world.consumer(**QUICK)).error(),
    }
    detail = refused(errors, "epoch", "link:stolen")
    # The owner keeps the partition all the while.
    await producer.send_event(EventData("second"), partition_id="0")
    same(bodies(await owners[2].exactly(2)), [b"first", b"second"], "what the owner got")
    return detail


@case("too-large", limit=90)
async def too_large(world):
    producer = world.producer(**QUICK)
    error = await refusal(producer.send_batch([EventData(bytes(1 << 20))], partition_id="0"), Exception)
    check(isinstance(error, (ValueError, EventHubError)), "%r", error)
    await producer.send_batch([EventData(bytes((1 << 20) - 512))], partition_id="0")
    return "%s, from the client" % name_of(error) if isinstance(error, ValueError) else name_of(error)


@case("beyond-end", limit=90)
async def beyond_end(world):
    await world.producer().send_batch([EventData("event %d" % i) for i in range(3)], partition_id="0")
    offset = await unread(world, world.consumer(**QUICK), "0", "1000", "The supplied offset '1000' is invalid. The last offset in the system is '2'", "argument-error")
    number = await unread(world, world.consumer(**QUICK), "0", 1000, "The supplied sequence number '1000' is invalid. The last", "argument-error")
    check(offset == number, "%s; %s", offset, number)
    return offset


async def unread(world, consumer, partition, position, text, condition, at_token=False):
    """What a user sees of a receiver that is refused, which must tell why: in the answer
    to its attach, or already in the one to its token, if the SDK asks for so narrow a one."""
    connections = connections_of(consumer)
    reader = world.reader(partition, position, client=consumer)
    # The SDK takes a refusal for its own close: it ends the receiver and starts
    # another one later. Only its trace of frames shows why.
    # Cases that run beside this one are in the trace too: the answer to an attach names
    # the hub, but of the one to a token the SDK keeps the condition alone.
    trace = world.sdk.trace
    await until(lambda: trace.has(world.hub, text, condition) or at_token and trace.has(
        "CBS Put token error", condition, connections=connections), "a trace of the refusal: %s" % text)
    same((bodies(reader.events), reader.errors), ([], []), "what the reader got")
    await reader.close()
    return "receive: no exception, only a trace"


def connections_of(consumer):
    """The names of the connections that a consumer opens to receive, from now on: the SDK
    makes a new one after each failure, and its trace has nothing else to tell them apart."""
    client, names = getattr(consumer, "target", consumer), set()
    create = client._create_consumer

    def created(*args, **kwargs):
        receiver = create(*args, **kwargs)
        names.add(receiver._name)
        return receiver
    client._create_consumer = created
    return names


def refused(errors, text, condition):
    """What a user sees of errors, each of which must tell why, and with which condition."""
    for what, error in errors.items():
        check(isinstance(error, EventHubError), "%s: %r", what, error)
        said = "%s %s" % (error, getattr(error, "error", ""))
        check(re.search(text, said), "%s: no %s in %s", what, text, said)
        check(re.search(condition, said), "%s: no %s in %s", what, condition, said)
    return outcomes(errors)

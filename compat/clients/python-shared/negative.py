"""What goes wrong, and the exception that a user sees."""

import asyncio
import re

from azure.eventhub import EventData
from azure.eventhub.exceptions import AuthenticationError, ConnectError, ConnectionLostError, EventDataSendError, EventHubError

from registry import case
from world import bodies, check, name_of, refusal, same

# The SDK retries most refusals; it must not make the cases long.
QUICK = {"retry_total": 1, "retry_backoff_factor": 0.1}


def send(producer, **where):
    return producer.send_event(EventData("refused"), **where)


async def outcomes(**errors):
    return "; ".join("%s: %s" % (what, name_of(e)) for what, e in errors.items())


@case("wrong-key", limit=90)
async def wrong_key(world):
    producer = world.producer(key="no such key", **QUICK)
    consumer = world.consumer(key="no such key", **QUICK)
    sent = await refusal(send(producer), AuthenticationError)
    asked = await refusal(producer.get_eventhub_properties(), AuthenticationError)
    read = await world.reader("0", client=consumer).error()
    check(isinstance(read, AuthenticationError), "receiving: %r", read)
    return await outcomes(send=sent, properties=asked, receive=read)

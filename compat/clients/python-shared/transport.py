"""The other ways to the broker: TLS and WebSocket."""

import os

from azure.eventhub import EventData, TransportType

from registry import case
from world import bodies, same


@case("tls")
async def tls(world):
    await there_and_back(world, world.sdk.over_tls(world.env))


@case("websocket")
async def websocket(world):
    await there_and_back(world, {
        "transport_type": TransportType.AmqpOverWebsocket,
        "custom_endpoint_address": "sb://" + world.env["MILLRACE_WS_ENDPOINT"],
        "connection_verify": world.env["MILLRACE_CA_FILE"],
    })


async def there_and_back(world, options):
    """Small events, one that takes many frames, and a question, over a connection with options."""
    producer, consumer = world.producer("tls", **options), world.consumer("tls", **options)
    sent = [b"event %d" % i for i in range(50)] + [os.urandom(700_000)]
    await producer.send_batch([EventData(body) for body in sent[:25]], partition_id="0")
    for body in sent[25:]:
        await producer.send_event(EventData(body), partition_id="0")
    same(bodies(await world.reader("0", client=consumer).exactly(len(sent))) == sent, True, "events come back unchanged")
    same(await producer.get_partition_ids(), ["0", "1", "2", "3"], "partition ids")

"""The SDK's synchronous API, as the cases use it: each call in a thread of its own,
callbacks back on the loop."""

import asyncio
import threading

from azure.eventhub import EventHubConsumerClient, EventHubProducerClient
from azure.eventhub.extensions.checkpointstoreblob import BlobCheckpointStore

from sdk import Sdk


class Blocking(Sdk):
    def producer(self, connection, hub, **options):
        return Threaded(EventHubProducerClient.from_connection_string(
            connection, eventhub_name=hub, **{**self.options, **options}))

    def consumer(self, connection, hub, group, checkpoint_store=None, **options):
        if checkpoint_store:
            options["checkpoint_store"] = checkpoint_store.target
        return Threaded(EventHubConsumerClient.from_connection_string(
            connection, group, eventhub_name=hub, **{**self.options, **options}))

    def store(self, connection, container):
        return Threaded(BlobCheckpointStore.from_connection_string(connection, container))

    async def make_container(self, store):
        await in_thread(store.target._container_client.create_container)


class Threaded:
    """A blocking object whose methods can be awaited."""

    def __init__(self, target):
        self.target = target

    def __getattr__(self, name):
        value = getattr(self.target, name)
        if not callable(value):
            return value

        async def call(*args, **kwargs):
            loop = asyncio.get_running_loop()
            for key, arg in kwargs.items():
                if asyncio.iscoroutinefunction(arg):
                    kwargs[key] = from_thread(arg, loop)
            return await in_thread(value, *args, **kwargs)
        return call

    async def close(self):
        if hasattr(self.target, "close"):
            await in_thread(self.target.close)


def from_thread(callback, loop):
    """A function that the SDK calls from its threads, around a coroutine of the loop."""
    def called(context, *args):
        context = context and Threaded(context)
        return asyncio.run_coroutine_threadsafe(callback(context, *args), loop).result()
    return called


async def in_thread(function, *args, **kwargs):
    # Not the loop's own pool: it has few threads, and receiving holds one.
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def settle(set_it, value):
        if not future.done():
            set_it(value)

    def run():
        try:
            result = function(*args, **kwargs)
        except BaseException as e:
            done = (future.set_exception, e)
        else:
            done = (future.set_result, result)
        try:
            loop.call_soon_threadsafe(settle, *done)
        except RuntimeError:
            pass  # the loop is closed, so nobody waits
    threading.Thread(target=run, daemon=True).start()
    return await future

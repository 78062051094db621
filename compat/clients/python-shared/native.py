"""The SDK's asynchronous API, as the cases use it."""

from azure.eventhub.aio import EventHubConsumerClient, EventHubProducerClient
from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore

from sdk import Sdk


class Native(Sdk):
    def producer(self, connection, hub, **options):
        return EventHubProducerClient.from_connection_string(
            connection, eventhub_name=hub, **{**self.options, **options})

    def consumer(self, connection, hub, group, **options):
        return EventHubConsumerClient.from_connection_string(
            connection, group, eventhub_name=hub, **{**self.options, **options})

    def store(self, connection, container):
        return BlobCheckpointStore.from_connection_string(connection, container)

    async def make_container(self, store):
        # The store's own storage client: the checkpoint stores bring no other, and
        # make no container themselves.
        await store._container_client.create_container()

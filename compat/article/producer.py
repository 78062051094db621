"""Sends numbered readings to the partitions in turn:

    producer.py COUNT INTERVAL [FIRST]

Each is a batch of its own, sent again by the SDK until it is acknowledged.
"""

import json
import sys
import time

from azure.eventhub import EventData, EventHubProducerClient

from environment import CONNECTION, HUB, report


def main(count, interval, first):
    with EventHubProducerClient.from_connection_string(CONNECTION, eventhub_name=HUB, retry_total=20, retry_backoff_max=0.5) as client:
        partitions = client.get_partition_ids()
        for number in range(first, first + count):
            partition = partitions[number % len(partitions)]
            batch = client.create_batch(partition_id=partition)
            batch.add(EventData(json.dumps({"reading": number, "taken": time.time()})))
            client.send_batch(batch)
            report(sent=number, partition=partition)
            time.sleep(interval)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)

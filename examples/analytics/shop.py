"""The events of a small shop: payments, and what becomes of their deliveries."""

import datetime
import json

from azure.eventhub import EventData, EventHubProducerClient

BEGIN = datetime.datetime(2026, 3, 14, 9, 0)
CITIES = ["Bergen", "Porto", "Zagreb"]
STATUSES = ["packed", "shipped", "delivered"]


def payments(orders):
    """One for each order, seven seconds apart."""
    for n in range(orders):
        yield {"order": f"order-{n:04}", "city": CITIES[n % 3], "amount": f"{10 + n % 17}.{n % 100:02}",
               "at": (BEGIN + datetime.timedelta(seconds=7 * n)).isoformat()}


def deliveries(orders):
    """Up to three for each order; every fifth order is late, every seventh only packed."""
    for step, status in enumerate(STATUSES):
        for n in range(orders):
            if step == 2 and n % 5 == 0 or step > 0 and n % 7 == 0:
                continue
            at = BEGIN + datetime.timedelta(seconds=7 * n, minutes=[5, 20, 30 + n % 3 * 10][step])
            yield {"order": f"order-{n:04}", "status": status, "at": at.isoformat()}


def send(connection, hub, events):
    """Sends events with the Azure SDK, those of an order with its key, and so in
    order. Returns how many there were."""
    by_key = {}
    for event in events:
        by_key.setdefault(event["order"], []).append(event)
    with EventHubProducerClient.from_connection_string(connection, eventhub_name=hub) as producer:
        for key, group in by_key.items():
            batch = producer.create_batch(partition_key=key)
            for event in group:
                data = EventData(json.dumps(event))
                data.content_type = "application/json"
                batch.add(data)
            producer.send_batch(batch)
    return sum(len(group) for group in by_key.values())


def expected(orders):
    """What the queries must say, worked out without them."""
    paid, moved = list(payments(orders)), list(deliveries(orders))
    windows = {}
    for p in paid:
        minute = p["at"][:16]
        n, cents = windows.get(minute, (0, 0))
        windows[minute] = n + 1, cents + int(p["amount"].replace(".", ""))
    latest = {}
    for d in moved: # in the order that they were sent
        latest[d["order"]] = d["status"]
    arrived = {d["order"] for d in moved if d["status"] == "delivered"}
    return {
        "windows": [(minute, n, cents) for minute, (n, cents) in sorted(windows.items())],
        "join": [(city, sum(p["city"] == city for p in paid), sum(p["city"] == city and p["order"] in arrived for p in paid))
                 for city in sorted(CITIES)],
        "latest": sorted((status, list(latest.values()).count(status)) for status in set(latest.values())),
    }

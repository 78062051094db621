"""SQL over captured files: see README.md."""

import argparse
import os
import sys
import tempfile

import shop
from broker import Broker
from lake import QUERIES, Lake, show

HUBS = ["payments", "deliveries"]


def tables(lake, orders=None):
    """Prints what the queries say, and checks it if the orders are known."""
    answers = lake.answers()
    for query in QUERIES:
        show(query, *answers[query.stem])
    if orders is None:
        return
    _, windows = answers["2-windows"]
    _, join = answers["3-join"]
    _, latest = answers["4-latest"]
    said = {
        "windows": [(minute.isoformat()[:16], n, int(amount * 100)) for minute, n, amount in windows],
        "join": [row[:3] for row in join],
        "latest": [row[:2] for row in latest],
    }
    for name, want in shop.expected(orders).items():
        if said[name] != want:
            sys.exit(f"{name}: the files say {said[name]}, and {want} was sent")


def demonstrate(program, orders):
    """Sends a shop's events to a broker, and asks the files that it captures."""
    with tempfile.TemporaryDirectory(prefix="analytics-") as folder, Broker(program, folder) as broker:
        events = {"payments": list(shop.payments(orders)), "deliveries": list(shop.deliveries(orders))}
        for hub in HUBS:
            broker.command("hub", "create", hub, "--partitions", "2",
                           "--capture", "--capture-format", "Parquet", "--capture-to", "folder")
            n = shop.send(broker.connection, hub, events[hub])
            print(f"Sent {n} events to {hub}.")
        for hub in HUBS:
            broker.captured(str(broker.lake), hub, len(events[hub]))
        print(f"\n=== From the folder {broker.lake}")
        tables(Lake(str(broker.lake), HUBS), orders)

        # The same events once more, now captured to the broker's own Blob endpoint.
        for hub in HUBS:
            broker.command("hub", "update", hub, "--capture=on", "--capture-to", "/lake")
            broker.command("replay", "--from-capture", str(broker.lake / "localhost" / hub), "--hub", hub)
        for hub in HUBS:
            broker.captured("blob://lake", hub, len(events[hub]))
        print("\n=== Through the Blob endpoint, from the container lake")
        tables(Lake("blob://lake", HUBS, storage=broker.storage), orders)
        print("\nBoth say what was sent.")


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--millrace", default="millrace", help="the program")
    flags.add_argument("--orders", type=int, default=150, help="how many are made up")
    flags.add_argument("--lake", help="run the queries over captured files that there are, in a folder or in "
                       "blob://CONTAINER of $AZURE_STORAGE_CONNECTION_STRING, and start no broker")
    flags.add_argument("--namespace", default="localhost", help="the first part of those files' names")
    options = flags.parse_args()
    if options.lake is None:
        demonstrate(options.millrace, options.orders)
    else:
        tables(Lake(options.lake, HUBS, options.namespace, os.environ.get("AZURE_STORAGE_CONNECTION_STRING")))


if __name__ == "__main__":
    main()

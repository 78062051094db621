"""Where the programs find the broker and the checkpoint store, and how they report."""

import json
import os
import sys

CONNECTION = os.environ["EVENTHUB_CONNECTION_STRING"]
STORAGE = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
HUB = os.environ.get("EVENTHUB_NAME", "trial")
CONTAINER = os.environ.get("CHECKPOINT_CONTAINER", "checkpoints")


def report(**facts):
    """Prints one line of JSON."""
    print(json.dumps(facts), flush=True)


def note(text):
    print(text, file=sys.stderr, flush=True)

"""A broker of this example's own, and the commands that manage it."""

import json
import os
import pathlib
import signal
import subprocess
import time

CONFIG = """\
capture-destinations:
  - {name: folder, kind: folder, folder: %s}
"""


class Broker:
    """A millrace process on free ports, with its data in a folder."""

    def __init__(self, program, folder):
        self.program, self.folder = program, pathlib.Path(folder)
        self.lake = self.folder / "lake"

    def __enter__(self):
        config, endpoints = self.folder / "millrace.yaml", self.folder / "endpoints.json"
        config.write_text(CONFIG % json.dumps(str(self.lake)))
        self.log = open(self.folder / "broker.log", "wb")
        doors = [x for door in ("amqp", "http", "blob") for x in ("--" + door, "127.0.0.1:0")]
        self.process = subprocess.Popen(
            [self.program, "serve", "--config", config, "--data", self.folder / "data", "--endpoints", endpoints,
             "--amqps", "off", "--https", "off", *doors], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 30
        while not endpoints.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the broker does not start:\n" + (self.folder / "broker.log").read_text())
            time.sleep(0.02)
        there = json.loads(endpoints.read_text())
        self.connection, self.storage = there["connectionString"], there["storageConnectionString"]
        self.environment = os.environ | {
            "EVENTHUB_CONNECTION_STRING": self.connection, "MILLRACE_URL": "http://" + there["http"],
            "AZURE_STORAGE_CONNECTION_STRING": self.storage}
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.log.close()

    def command(self, *args):
        """Runs millrace, and returns what it prints."""
        done = subprocess.run([self.program, *args], env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"millrace {' '.join(args)}: {done.stderr}")
        return done.stdout

    def captured(self, location, hub, events):
        """Turns the capture of a hub off, which writes what has come at once, and
        waits for the files."""
        self.command("hub", "update", hub, "--capture=off")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                found = self.command("capture", "ls", location, "--event-hub", hub, "--check", "-o", "json")
            except SystemExit: # the first file is not there yet
                found = "{}"
            if json.loads(found).get("events") == events:
                return
            time.sleep(0.1)
        raise SystemExit(f"the {events} events of {hub} do not come to {location}")

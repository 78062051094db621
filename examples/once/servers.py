"""A broker and a Redis of this example's own, and the broker's commands."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import redis

PATIENCE = 120  # seconds, for what only a failure takes that long for


def until(done, what):
    """Waits until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(what() if callable(what) else what)
        time.sleep(0.05)


class Server:
    """A process in the background, with its output in a file."""

    def __init__(self, folder, name, args):
        self.name, self.log = name, pathlib.Path(folder) / (name + ".log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(args, stdout=log, stderr=log)

    def wait(self, ready):
        def so():
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended:\n{self.log.read_text()}")
            return ready()
        until(so, lambda: f"{self.name} does not start:\n{self.log.read_text()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Redis(Server):
    """A redis-server that is not to outlive the example. One that is, is started with
    appendonly yes and appendfsync always."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        super().__init__(folder, "redis", [
            "redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", folder,
            "--save", "", "--appendonly", "no"])
        self.wait(self.answers)

    def answers(self):
        try:
            return redis.from_url(self.url).ping()
        except redis.RedisError:
            return False


class Broker(Server):
    """A millrace on free ports, with its data in a folder."""

    def __init__(self, program, folder):
        self.program, endpoints = program, pathlib.Path(folder) / "endpoints.json"
        doors = [x for door in ("amqp", "http", "blob") for x in ("--" + door, "127.0.0.1:0")]
        super().__init__(folder, "millrace", [
            program, "serve", "--data", pathlib.Path(folder) / "data", "--endpoints", endpoints,
            "--amqps", "off", "--https", "off", *doors])
        self.wait(endpoints.exists)
        there = json.loads(endpoints.read_text())
        self.environment = {
            "EVENTHUB_CONNECTION_STRING": there["connectionString"], "MILLRACE_URL": "http://" + there["http"],
            "AZURE_STORAGE_CONNECTION_STRING": there["storageConnectionString"]}

    def command(self, *args):
        """Runs millrace, and returns what it prints."""
        return command([self.program, *args], self.environment)


def command(args, environment):
    done = subprocess.run(args, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, args))}: {done.stderr}")
    return done.stdout

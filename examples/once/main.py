"""The failure and the cure, with processes that really die: see README.md."""

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import redis

from servers import Broker, Redis, command, until

HERE = pathlib.Path(__file__).parent


class Consumer:
    """A consumer's process, which is killed when the example ends early."""

    def __init__(self, args, environment, log):
        with open(log, "ab") as out:
            self.process = subprocess.Popen(args, env=os.environ | environment, cwd=HERE, stdout=out, stderr=out)
        self.log = log

    def running(self):
        if self.process.poll() is not None:
            raise SystemExit(f"a consumer ended with {self.process.returncode}:\n{self.log.read_text()}")
        return True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Scenario:
    """A consumer that dies, another that goes on, and the effects that they had.

    repeats says how many events must have had theirs twice, the fewest and the most, of
    how many had had theirs when the first died."""

    def __init__(self, title, args, *, hub="trial", die="", repeats=lambda died: (0, 0)):
        self.title, self.args, self.hub, self.die, self.repeats = title, args, hub, die, repeats
        self.group = re.sub("[^a-z]+", "-", title.lower()).strip("-")

    def run(self, stage):
        """Plays the scenario, and returns its line of the table, and whether it is right."""
        hub, effects = stage.hubs[self.hub], f"effects:{stage.id}:{self.group}"
        environment = stage.environment | {"EFFECTS": effects}
        args = [x.format(hub=self.hub, group=self.group, url=stage.redis_url) for x in self.args]
        log = stage.folder / (self.group + ".log")
        count = lambda: {k: int(v) for k, v in stage.redis.hgetall(effects).items()}
        died = 0
        try:
            if self.die:
                with Consumer(args, environment | {"DIE": self.die}, log) as first:
                    first.process.wait(120)
                    if first.process.returncode != -signal.SIGKILL:
                        raise SystemExit(f"{self.title}: the first consumer was to be killed:\n{log.read_text()}")
                died = sum(count().values())
            with Consumer(args, environment, log) as second:
                # The hub has one partition, in order: with the last event all have come.
                until(lambda: second.running() and len(count()) >= hub.events,
                      lambda: f"{self.title}: {len(count())} of {hub.events} events came:\n{log.read_text()}")
                second.process.send_signal(signal.SIGTERM)
                second.process.wait(120)
            times = count().values()
        finally:
            stage.redis.delete(effects)
        twice = sum(n > 1 for n in times)
        fewest, most = self.repeats(died)
        right = len(times) == hub.events and fewest <= twice <= most and sum(times) == hub.events + twice
        return [self.title, hub.sent, hub.events, died or "", sum(times), twice], right


class Hub:
    """How many events were sent to a hub, and how many there are to tell by their ids."""

    def __init__(self, sent, events):
        self.sent, self.events = sent, events


class Stage:
    """What all scenarios share."""

    def __init__(self, broker, redis_url, folder, id):
        self.broker, self.redis_url, self.folder, self.id = broker, redis_url, pathlib.Path(folder), id
        self.redis = redis.from_url(redis_url, decode_responses=True)
        self.environment = broker.environment | {"REDIS_URL": redis_url}
        self.hubs = {}


def scenarios(millrace, consumer):
    everything = lambda died: (died, died)  # that had happened, since there was no checkpoint
    last = lambda died: (1, 1)  # the effect after which it died
    go = [consumer, "-hub", "{hub}", "-group", "{group}"]
    python = [sys.executable, "-B", "consumer.py", "--hub", "{hub}", "--group", "{group}"]
    shell = [millrace, "receive", "--hub", "{hub}", "--group", "{group}", "--exec", "exec ./effect.sh",
             "--checkpoint-every", "10", "--balance-interval", "1s", "--ownership-expiry", "4s"]
    ledger = ["--once", "{url}", "--lease", "10s"]
    return [
        Scenario("Go: no ledger, dies before the checkpoint", go, die="checkpoint", repeats=everything),
        Scenario("Go: ledger, dies before the checkpoint", [*go, "-once"], die="checkpoint"),
        Scenario("Go: ledger, dies before the mark", [*go, "-once"], die="effect:7", repeats=last),
        Scenario("Python: no ledger, dies before the checkpoint", python, die="checkpoint", repeats=everything),
        Scenario("Python: ledger, dies before the checkpoint", [*python, "--once"], die="checkpoint"),
        Scenario("Python: ledger, dies before the mark", [*python, "--once"], die="effect:7", repeats=last),
        Scenario("--exec: no ledger, dies before the checkpoint", shell, die="8",
                 repeats=lambda died: (1, died)),
        Scenario("--exec: ledger, dies before the checkpoint", [*shell, *ledger], die="8"),
        Scenario("Go: sent twice, ledger of numbers", [*go, "-once"], hub="twice", repeats=lambda died: (20, 20)),
        Scenario("Go: sent twice, ledger of ids", [*go, "-once", "-id", "event_id"], hub="twice"),
        Scenario("Python: sent twice, ledger of ids", [*python, "--once"], hub="twice"),
        Scenario("Go: one event can't be read", [*go, "-once", "-dead-letters", "letters"], hub="spoilt"),
    ]


def prepare(stage, plays):
    """Makes the hubs, a consumer group for each scenario, and sends the events."""
    say, send = stage.broker.command, [stage.producer, "-hub"]
    for name in ("trial", "twice", "spoilt", "letters"):
        say("hub", "create", name, "--partitions", "1")
    for play in plays:
        say("group", "create", "--hub", play.hub, play.group)
    say("send", "--hub", "trial", "--count", "40", "--quiet")
    command([*send, "twice", "-count", "20", "-twice"], stage.environment)
    command([*send, "spoilt", "-count", "40", "-spoilt"], stage.environment)
    stage.hubs = {"trial": Hub(40, 40), "twice": Hub(41, 21), "spoilt": Hub(40, 39)}


def table(rows):
    head = ["", "sent", "events", "before it died", "effects", "events twice"]
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * w for w in widths], *rows]:
        first, *others = (str(x) for x in row)
        print("  ".join([first.ljust(widths[0]), *(x.rjust(w) for x, w in zip(others, widths[1:]))]).rstrip(), flush=True)


def letters(stage):
    """Says what has been put aside, and whether that is right."""
    line = stage.broker.command("receive", "--hub", "letters", "--no-checkpoint", "--count", "1", "-o", "json")
    event = json.loads(line)
    why = event["properties"]
    print(f"\nPut aside: {event['body']!r}, {why['DeadLetterReason']}: {why['DeadLetterErrorDescription']} "
          f"(from {why['DeadLetterSource']}, number {why['DeadLetterSequenceNumber']})")
    return why["DeadLetterReason"] == "Poison"


def forget(stage):
    """Takes the ledgers' keys out of a Redis that is not this example's own."""
    host = stage.broker.environment["EVENTHUB_CONNECTION_STRING"].split("//")[1].split(";")[0].strip("/")
    for key in stage.redis.scan_iter(f"once*{host}/*"):
        stage.redis.delete(key)


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--millrace", default="millrace", help="the program")
    flags.add_argument("--go", default=str(HERE / ".venv"), help="the folder with the Go programs consumer and producer")
    options = flags.parse_args()
    if not shutil.which("redis-cli"):
        sys.exit("redis-cli is not on the path, which effect.sh calls: install the package redis-tools, or redis")
    with contextlib.ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory(prefix="once-"))
        url = os.environ.get("REDIS_URL")
        if not url:
            url = running.enter_context(Redis(folder)).url
        broker = running.enter_context(Broker(options.millrace, folder))
        stage = Stage(broker, url, folder, os.path.basename(folder))
        stage.producer = os.path.join(options.go, "producer")
        plays = scenarios(options.millrace, os.path.join(options.go, "consumer"))
        prepare(stage, plays)
        print(f"Consumers of {len(plays)} groups die and go on …", flush=True)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda play: play.run(stage), plays))
        table([row for row, _ in results])
        right = letters(stage)
        forget(stage)
        wrong = [row[0] for row, ok in results if not ok] + ([] if right else ["the event that was put aside"])
    if wrong:
        sys.exit("\nNot as it must be: " + "; ".join(wrong))
    print("\nAs it must be: without a ledger all that had no checkpoint happens twice, with one nothing,\n"
          "but for the event whose effect had happened and whose mark had not.")


if __name__ == "__main__":
    main()

"""What a case works with: clients of one event hub, and readers that keep what
arrives at a partition."""

import asyncio
import re
import time
import traceback


class Failed(AssertionError):
    """What had to hold does not."""


def check(holds, text, *values):
    if not holds:
        raise Failed(text % values if values else text)


def same(got, want, what):
    check(got == want, "%s: got %.300r, want %.300r", what, got, want)


async def until(condition, what, limit=20):
    """Waits until condition returns something true, and returns it."""
    deadline = time.monotonic() + limit
    while True:
        if value := condition():
            return value
        check(time.monotonic() < deadline, "%s: not within %s s", what() if callable(what) else what, limit)
        await asyncio.sleep(0.02)


class World:
    """The broker as one case sees it. Everything opened here is closed with it."""

    def __init__(self, sdk, env, hub):
        self.sdk, self.env, self.hub = sdk, env, hub
        self._open, self._stores = [], []

    @property
    def container(self):
        return self.hub.replace(".", "-").lower()

    @property
    def namespace(self):
        """The namespace's name, as the SDK has it in checkpoints."""
        return re.search(r"sb://([^/;]*)", self._connection("", None)).group(1)

    def producer(self, rule="", hub=None, key=None, **options):
        return self.keep(self.sdk.producer(self._connection(rule, key), hub or self.hub, **options))

    def consumer(self, rule="", hub=None, group="$Default", key=None, **options):
        return self.keep(self.sdk.consumer(self._connection(rule, key), hub or self.hub, group, **options))

    def store(self):
        store = self.sdk.store(self.env["MILLRACE_STORAGE_CONNECTION_STRING"], self.container)
        self._stores.append(store)
        return store

    def reader(self, partition, position="-1", client=None, **options):
        """Starts to receive from one partition."""
        return self.keep(Reader(client or self.consumer(), partition, position, options))

    def _connection(self, rule, key):
        text = self.sdk.connection(self.env, rule)
        return re.sub("SharedAccessKey=[^;]*", "SharedAccessKey=" + key, text) if key else text

    def keep(self, thing):
        self._open.append(thing)
        return thing

    async def close(self):
        for things in (self._open, self._stores):  # processors still write to their store
            for result in await asyncio.gather(*(thing.close() for thing in things), return_exceptions=True):
                if isinstance(result, Exception):
                    traceback.print_exception(result)


class Reader:
    """Receives from one partition and keeps the events, in their order."""

    def __init__(self, client, partition, position, options):
        self.events, self.errors, self.closed, self.metrics = [], [], [], []
        self._client = client
        self._task = asyncio.create_task(client.receive(
            on_event=self._event, on_error=self._error, on_partition_close=self._closed,
            partition_id=partition, starting_position=position, **options))

    async def _event(self, context, event):
        if event is not None:
            self.metrics.append(context.last_enqueued_event_properties)
            self.events.append(event)

    async def _error(self, _context, error):
        self.errors.append(error)

    async def _closed(self, _context, reason):
        self.closed.append(reason.name)

    def attached(self):
        """Whether the broker has answered the attach, which no public API tells."""
        client = getattr(self._client, "target", self._client)
        consumers = [c for p in list(client._event_processors.values()) for c in list(p._consumers.values())]
        return any(c._handler and c._handler._link and c._handler._link.get_state().name == "ATTACHED" for c in consumers)

    async def want(self, count, limit=20):
        """Waits for count events in all, and returns them."""
        def there():
            if self.errors:
                raise self.errors[0]
            if self._task.done():
                self._task.result()
            return len(self.events) >= count
        await until(there, lambda: "%d of %d events" % (len(self.events), count), limit)
        return self.events

    async def exactly(self, count, quiet=0.5):
        """Waits for count events in all, and then that no other arrives for a while."""
        await self.want(count)
        await asyncio.sleep(quiet)
        same(len(self.events), count, "events received")
        if self.errors:
            raise self.errors[0]
        return self.events

    async def error(self, limit=40):
        """Waits for the error that the SDK reports, and returns it."""
        await until(lambda: self.errors or self._task.done(), "an error", limit)
        if not self.errors:
            self._task.result()
        return self.errors[0]

    async def close(self):
        await stop(self._client, self._task)


async def stop(client, receiving):
    """Ends a client that receives in a task."""
    await client.close()
    receiving.cancel()
    await asyncio.wait([receiving], timeout=10)


async def attached(readers):
    """Waits until all readers are attached."""
    await until(lambda: all(r.attached() for r in readers), "attached readers")


def bodies(events):
    return [b"".join(e.body) for e in events]


def numbers(events):
    return [e.sequence_number for e in events]


def name_of(error):
    """The exception as a user sees it: its class, and the condition that it carries."""
    condition = getattr(error, "error", None)
    return "%s (%s)" % (type(error).__name__, condition) if condition else type(error).__name__


async def refusal(operation, expected):
    """Awaits what must fail; returns the exception, which must be of the class expected."""
    try:
        await operation
    except asyncio.CancelledError:
        raise
    except Exception as e:
        check(isinstance(e, expected), "%s instead of %s: %s", name_of(e), expected.__name__, e)
        return e
    raise Failed("nothing was raised")

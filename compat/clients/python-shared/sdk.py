"""What the two APIs of the SDK have in common here."""

import logging
import re

from azure.eventhub import TransportType


class Trace(logging.Handler):
    """What the SDK logs of links that are detached and tokens that are refused."""

    def __init__(self):
        super().__init__()
        self._lines = []
        logger = logging.getLogger("azure.eventhub")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(self)

    def emit(self, record):
        line = record.getMessage()
        if "<- DetachFrame" in line or "CBS Put token error" in line:
            self._lines.append((getattr(record, "amqpConnection", None), line))

    def has(self, *texts, connections=None):
        """Whether one line, of one of some connections if they are given, has all texts."""
        return any(all(text in line for text in texts) for connection, line in self._lines
                   if connections is None or connection in connections)


class Sdk:
    def __init__(self, **options):
        self.options = options  # of every client
        self.trace = Trace()

    def connection(self, env, rule=""):
        """The connection string with a rule's key, or over TLS."""
        return env["MILLRACE_%sCONNECTION_STRING" % (rule and rule.upper() + "_")]

    def over_tls(self, env):
        """The options of a client that speaks TLS to a port of its own."""
        # Over TLS the SDK takes no port from the connection string.
        return {
            "transport_type": TransportType.Amqp,
            "custom_endpoint_address": re.search("sb://[^/;]*", self.connection(env, "tls")).group(0),
            "connection_verify": env["MILLRACE_CA_FILE"],
        }

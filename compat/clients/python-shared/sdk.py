"""What the two APIs of the SDK have in common here."""

import re

from azure.eventhub import TransportType


class Sdk:
    def __init__(self, **options):
        self.options = options  # of every client

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

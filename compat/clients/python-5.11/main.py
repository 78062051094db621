"""The asynchronous SDK as it was at 5.11.0, which knows no emulator and so nothing
but TLS at port 5671: every client connects over it."""

import functools
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python-shared"))

from azure.eventhub._pyamqp.aio._sasl_async import SASLTransport  # noqa: E402
from native import Native  # noqa: E402
from program import main  # noqa: E402

# The SDK takes no port from a connection string, and this broker has a free one.
PORT = int(re.search(r"sb://[^/;]*:(\d+)", os.environ["MILLRACE_TLS_CONNECTION_STRING"]).group(1))
SASLTransport.__init__ = functools.partialmethod(SASLTransport.__init__, port=PORT)


class OnlyTls(Native):
    def connection(self, env, rule=""):
        text = super().connection(env, rule).replace("UseDevelopmentEmulator=true;", "")
        return re.sub(r"(sb://[^/;:]*):\d+", r"\1", text)

    def over_tls(self, env):
        return {}  # as always


if __name__ == "__main__":
    main(OnlyTls(connection_verify=os.environ["MILLRACE_CA_FILE"]))

"""Not for taking along: it kills the process where it hurts most."""

import os
import signal


class Accident:
    """Where the process dies, as kill -9 ends it: "checkpoint", in place of the first
    one; "effect:7", right after the seventh effect; "", nowhere."""

    def __init__(self, text):
        self.checkpoint = text == "checkpoint"
        self.effects = int(text.removeprefix("effect:")) if text.startswith("effect:") else 0

    def after_effect(self):
        self.effects -= 1
        if self.effects == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def at_checkpoint(self):
        if self.checkpoint:
            os.kill(os.getpid(), signal.SIGKILL)

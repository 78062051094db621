"""The cases by name."""

CASES = {}


class Skip(Exception):
    """The client cannot do what the case asks."""


def case(name, limit=60):
    """Registers a coroutine as a case that must be done within limit seconds."""
    def register(function):
        CASES[name] = (function, limit)
        return function
    return register

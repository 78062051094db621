"""AMQP messages as bytes. pyamqp decodes string, symbol and binary to the same Python
bytes, and integers of every width to int, so what the SDK shows cannot tell whether a
type came back: the encoded sections can."""

import importlib

from azure.eventhub._pyamqp import _decode
from azure.eventhub._pyamqp._encode import encode_payload
from azure.eventhub._transport._pyamqp_transport import PyamqpTransport

HEADER, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS = 0x70, 0x71, 0x72

_received = {}


def keep_payloads():
    """From now on, each received message's bytes are kept for received()."""
    def decode(buffer):
        payload = bytes(buffer)
        message = _decode.decode_payload(memoryview(payload))
        _received[id(message)] = (message, payload)
        return message
    for module in ("receiver", "aio._receiver_async"):
        importlib.import_module("azure.eventhub._pyamqp." + module).decode_payload = decode


def received(event):
    """The sections of an event that arrived."""
    return sections(_received[id(event._message)][1])


def encoded(message):
    """The sections of an AmqpAnnotatedMessage as the SDK sends them."""
    return sections(bytes(encode_payload(bytearray(), PyamqpTransport.to_outgoing_amqp_message(message))))


def sections(payload):
    """Splits an encoded message: pairs of a section's number and its bytes."""
    out, rest = [], memoryview(payload)
    while rest:
        section, number = rest, rest[2]
        rest, _ = _decode._DECODE_BY_CONSTRUCTOR[rest[3]](rest[4:])
        out.append((number, bytes(section[:len(section) - len(rest)])))
    return out


def lasting(parts):
    """The sections that reach the reader as they were sent."""
    return [part for part in parts if part[0] not in (HEADER, MESSAGE_ANNOTATIONS)]

"""Protobuf messages as JSON for people and programs: what REST answers and `-o json` prints.

It differs from protobuf's own JSON mapping in one thing: 64-bit integers are numbers, not strings. Field
names are those of the proto files, fields without a value are written too, and unset messages are null.
"""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_MESSAGE = FieldDescriptor.TYPE_MESSAGE
_AS_TEXT = {"google.protobuf.Timestamp", "google.protobuf.Duration"}


def to_document(message: Message) -> dict[str, Any]:
    """The message as plain dictionaries, lists, strings, numbers and null.

    Timestamps are RFC 3339 text, durations "1.5s", bytes base64, enum values their names.
    """
    document: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None and not message.HasField(field.name):
            continue
        document[field.name] = _field(message, field)
    return document


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of = field.message_type.fields_by_name["value"]
        return {str(key): _value(of, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_value(field, item) for item in value]
    if field.type == _MESSAGE and not message.HasField(field.name):
        return None
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if field.type == _MESSAGE:
        return value.ToJsonString() if field.message_type.full_name in _AS_TEXT else to_document(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return value

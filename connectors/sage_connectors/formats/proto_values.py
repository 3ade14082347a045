"""Protobuf messages as trees that a record can carry, and back."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sage_connectors.formats.carried import EPOCH, moment
from sage_flink.common.errors import Rejected

_WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_STRUCTS = frozenset(f"google.protobuf.{kind}" for kind in ("Struct", "Value", "ListValue"))


def from_message(message: Any) -> Any:
    """The message as a tree: every field by its name."""
    kind = message.DESCRIPTOR.full_name
    if kind in _WRAPPERS:
        return message.value
    if kind == "google.protobuf.Timestamp":
        return _moment(message)
    if kind == "google.protobuf.Duration":
        return message.ToJsonString()
    if kind in _STRUCTS:
        from google.protobuf import json_format

        return json_format.MessageToDict(message)
    return {each.name: _field(message, each) for each in message.DESCRIPTOR.fields}


def _field(message: Any, field: Any) -> Any:
    value = getattr(message, field.name)
    if _is_map(field):
        below = field.message_type.fields_by_name["value"]
        return {_map_key(key): _value(each, below) for key, each in value.items()}
    if _is_repeated(field):
        return [_value(each, field) for each in value]
    if field.has_presence and not message.HasField(field.name):
        return field.default_value if field.has_default_value else None
    return _value(value, field)


def _value(value: Any, field: Any) -> Any:
    if field.type in (field.TYPE_MESSAGE, field.TYPE_GROUP):
        return from_message(value)
    if field.type == field.TYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value


def _map_key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _is_repeated(field: Any) -> bool:
    return bool(field.label == field.LABEL_REPEATED)


def _is_map(field: Any) -> bool:
    is_entry = field.type == field.TYPE_MESSAGE and field.message_type.GetOptions().map_entry
    return bool(is_entry and _is_repeated(field))


def _moment(message: Any) -> str:
    try:
        return moment(
            EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
        )
    except OverflowError as error:
        raise Rejected(
            f"a timestamp of {message.seconds} s is outside of the years 1 to 9999"
        ) from error


def to_message(value: Any, kind: Any) -> Any:
    """The tree as a message of the class ``kind``; the reverse of :func:`from_message`.

    Raises:
        Rejected: a field is unknown, or its value is not of its type.
    """
    message = kind()
    try:
        _fill(message, value)
    except RecursionError as error:  # its message depends on the stack
        raise Rejected("the value is nested too deeply") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        name = message.DESCRIPTOR.full_name
        raise Rejected(f"the value is not of {name}: {type(error).__name__}: {error}") from error
    return message


def _fill(message: Any, value: Any) -> None:
    kind = message.DESCRIPTOR.full_name
    if kind in _WRAPPERS:
        message.value = value
    elif kind == "google.protobuf.Timestamp":
        at = datetime.fromisoformat(value)
        message.FromDatetime(at)
    elif kind == "google.protobuf.Duration":
        message.FromJsonString(value)
    elif kind in _STRUCTS:
        from google.protobuf import json_format

        json_format.ParseDict(value, message)
    elif not isinstance(value, Mapping):
        raise TypeError(f"{kind} must be named fields, got {type(value).__name__}")
    else:
        message.SetInParent()
        for name, each in value.items():
            _set(message, name, each)


def _set(message: Any, name: Any, value: Any) -> None:
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise ValueError(f"no field {name!r}")
    if value is None:
        return
    target = getattr(message, name)
    if _is_map(field):
        below = field.message_type.fields_by_name
        for key, each in value.items():
            _put(target, _typed_key(key, below["key"]), each, below["value"])
    elif _is_repeated(field):
        for each in value:
            if field.type == field.TYPE_MESSAGE:
                _fill(target.add(), each)
            else:
                target.append(_scalar(each, field))
    elif field.type in (field.TYPE_MESSAGE, field.TYPE_GROUP):
        target.SetInParent()
        _fill(target, value)
    else:
        setattr(message, name, _scalar(value, field))


def _put(target: Any, key: Any, value: Any, field: Any) -> None:
    if field.type == field.TYPE_MESSAGE:
        _fill(target[key], value)
    else:
        target[key] = _scalar(value, field)


def _scalar(value: Any, field: Any) -> Any:
    if field.type == field.TYPE_ENUM and isinstance(value, str):
        if value not in field.enum_type.values_by_name:
            raise ValueError(f"{field.name} has no value {value!r}")
        return field.enum_type.values_by_name[value].number
    if isinstance(value, bool) and field.type != field.TYPE_BOOL:
        raise TypeError(f"{field.name} cannot be {value}")
    return value


def _typed_key(key: Any, field: Any) -> Any:
    if field.type == field.TYPE_STRING:
        return key
    if field.type == field.TYPE_BOOL:
        return {"true": True, "false": False}.get(key, key)
    return int(key)

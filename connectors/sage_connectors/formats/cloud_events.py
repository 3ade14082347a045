"""CloudEvents 1.0 over Kafka, in structured and in binary mode.

Source: CloudEvents specification 1.0.2, "Kafka Protocol Binding" and "JSON Event Format".
"""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from sage_connectors.formats.fields import Fields
from sage_connectors.formats.plain_json import parse, require_bytes
from sage_connectors.formats.times import timestamp_ms
from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.flow.formats import Decoder

_REQUIRED = ("id", "source", "specversion", "type")
_PREFIX = "ce_"
_STRUCTURED = "application/cloudevents+json"


@dataclass(frozen=True)
class CloudEvents:
    """Events whose attributes are in the message (structured) or in headers ``ce_...`` (binary).

    A record's value is the event: a dict of its attributes, and ``data`` where it has any. Data in
    JSON is a tree; data of another content type is text in binary mode where it is ``text/...``,
    otherwise bytes. Its id is the event's ``source`` and ``id`` with a blank between, which
    together are unique; its event time is the attribute ``time``. ``fields`` change both: ``$`` is
    the event, so ``$.data.body`` is a field of the data.

    Batches (``application/cloudevents-batch+json``) are rejected: no event over Kafka is one.

    >>> headers = {"ce_specversion": b"1.0", "ce_type": b"planted", "ce_source": b"/wood",
    ...            "ce_id": b"7", "content-type": b"application/json"}
    >>> message = Record("t/0/1", b'{"name": "Oak"}', headers=headers)
    >>> [(record.id, record.value["data"]) for record in CloudEvents().decoder()(message)]
    [('/wood 7', {'name': 'Oak'})]
    """

    fields: Fields = field(default_factory=Fields)

    @property
    def emits_deletes(self) -> bool:
        """Whether ids are mapped."""
        return self.fields.emits_deletes

    def decoder(self) -> Decoder:
        """Messages into records."""
        fields = self.fields

        def decode(message: Record) -> tuple[Record, ...]:
            headers = {name.lower(): value for name, value in message.headers.items()}
            if message.value is None and f"{_PREFIX}specversion" not in headers:
                return (fields.tombstone(message),)
            event = _event(message, headers)
            named = message.replace(id=f"{event['source']} {event['id']}")
            if not fields.event_time and event.get("time") is not None:
                named = named.replace(timestamp_ms=timestamp_ms(event["time"], "iso_8601"))
            return tuple(fields.records_of(named, event))

        return decode


def _event(message: Record, headers: dict[str, bytes]) -> dict[str, Any]:
    content = headers.get("content-type", b"").decode(errors="replace").lower()
    if content.startswith("application/cloudevents") and not content.startswith(_STRUCTURED):
        raise Rejected(f"events must be one a message in JSON, got content type {content!r:.100}")
    if content.startswith(_STRUCTURED):
        event = _structured_value(parse(message.value))
    elif f"{_PREFIX}specversion" in headers:
        event = _binary(message, headers, content)
    else:  # a producer that sets no headers
        event = _structured_value(parse(message.value))
    for name in _REQUIRED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise Rejected(
                f"not a CloudEvent: attribute {name!r} must be text, got {event.get(name)!r}"
            )
    if event["specversion"] != "1.0":
        raise Rejected(f"specversion must be '1.0', got {event['specversion']!r:.100}")
    return event


def _structured_value(event: Any) -> dict[str, Any]:
    if not isinstance(event, dict):
        raise Rejected(f"not a CloudEvent: must be an object, got {type(event).__name__}")
    if (encoded := event.pop("data_base64", None)) is not None:
        try:
            event["data"] = base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise Rejected(f"data_base64 is not base64: {error}") from error
    return event


def _binary(message: Record, headers: dict[str, bytes], content: str) -> dict[str, Any]:
    event: dict[str, Any] = {}
    for name, value in headers.items():
        if name.startswith(_PREFIX):
            try:
                event[name.removeprefix(_PREFIX)] = value.decode()
            except UnicodeDecodeError as error:
                raise Rejected(f"header {name!r} is not valid UTF-8") from error
    if content:
        event["datacontenttype"] = content
    if message.value is not None:
        event["data"] = _data(require_bytes(message.value), content)
    return event


def _data(raw: bytes, content: str) -> Any:
    kind = content.partition(";")[0].strip()
    if not kind or kind == "application/json" or kind.endswith("+json"):
        return parse(raw)
    if kind.startswith("text/"):
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise Rejected(f"data of content type {kind!r} is not valid UTF-8") from error
    return raw

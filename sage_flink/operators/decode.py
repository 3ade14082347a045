"""Bytes from a topic into documents and questions; what is not one is rejected with its reason.

Messages are JSON objects. ``type`` may be left out; an unknown one is rejected, so that a topic
shared with later kinds of message never feeds them to a job that does not know them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record, is_timestamp_ms
from sage_flink.common.values import require_text
from sage_flink.tsdb.time_series_store import TIME_MAX_NS

ID_CHARS_MAX = 512
#: A later time could be no point's, and is mostly one in other units.
TIME_MAX_MS = TIME_MAX_NS // 1_000_000


@dataclass(frozen=True, slots=True)
class DecodeDocument:
    """``{"id", "text", "title"?, "modified_ms"?}`` -> a record with the document's own id.

    Event time is ``modified_ms`` where given, else the message's. A title of blanks is none. At
    most ``text_bytes_max`` bytes of text.

    A delete of all rows of a document is ``{"id", "op": "delete"}``, or a tombstone: a message
    without a value, whose key is the document's id in UTF-8.
    """

    emits_deletes: ClassVar[bool] = True

    text_bytes_max: int = 4_000_000

    def __call__(self, record: Record) -> Iterable[Record]:
        """The document, or Rejected."""
        if record.value is None:
            return (_delete(record, _tombstone_id(record.key)),)
        fields = _message(record.value, "document")
        if (op := fields.get("op", "upsert")) not in {"upsert", "delete"}:
            raise Rejected(f"field 'op' must be 'upsert' or 'delete', got {op!r:.100}")
        if op == "delete":
            return (_delete(record, _text(fields, "id", ID_CHARS_MAX)),)
        body = _text(fields, "text", self.text_bytes_max)
        doc = _text(fields, "id", ID_CHARS_MAX)
        title = doc if fields.get("title") is None else fields["title"]
        modified = fields.get("modified_ms")
        if modified is None:
            modified = record.timestamp_ms
        if not isinstance(title, str):
            raise Rejected(f"field 'title' must be text, got {type(title).__name__}")
        title = title if title.strip() else doc
        if not is_timestamp_ms(modified) or not 0 <= modified < TIME_MAX_MS:
            rule = "must be milliseconds since 1970, before the year 2262"
            raise Rejected(f"field 'modified_ms' {rule}, got {modified!r:.100}")
        value = {"doc": doc, "title": title, "text": body}
        return (record.replace(id=doc, value=value, timestamp_ms=modified),)


@dataclass(frozen=True, slots=True)
class DecodeQuestion:
    """``{"question", "id"?, "messages"?}`` -> a record with the question's own id, if it has one.

    ``messages`` is the conversation before the question, in OpenAI's shape.
    """

    text_bytes_max: int = 200_000

    def __call__(self, record: Record) -> Iterable[Record]:
        """The question, or Rejected."""
        fields = _message(record.value, "question")
        question = _text(fields, "question", self.text_bytes_max)
        own = fields.get("id")
        asked = record.id if own is None or own == "" else str(own)
        earlier = fields.get("messages") or []
        if not isinstance(earlier, list):
            raise Rejected("field 'messages' must be a list")
        value = {"id": asked, "question": question, "messages": earlier}
        return (record.replace(id=asked, value=value),)


def _delete(record: Record, doc: str) -> Record:
    return record.delete_of(doc, id=doc)


def _tombstone_id(key: bytes | None) -> str:
    if not key:
        raise Rejected("the message has no value (a tombstone) and no key with the document's id")
    try:
        return _text({"key": key.decode()}, "key", ID_CHARS_MAX)
    except UnicodeDecodeError as error:
        raise Rejected(f"the key of a tombstone is not valid UTF-8: {key!r:.100}") from error


def _message(raw: Any, kind: str) -> dict[str, Any]:
    if raw is None:
        raise Rejected("the message has no value (a tombstone)")
    if not isinstance(raw, bytes):
        raise Rejected(f"the message must be bytes, got {type(raw).__name__}")
    try:
        fields = msgspec.json.decode(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Rejected(f"not valid UTF-8 at byte {error.start}") from error
    except msgspec.DecodeError as error:
        raise Rejected(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise Rejected(f"must be a JSON object, got {type(fields).__name__}")
    if (got := fields.get("type", kind)) != kind:
        raise Rejected(f"unknown message type {got!r:.100}; this job takes {kind!r}")
    return fields


def _text(fields: dict[str, Any], name: str, bytes_max: int) -> str:
    found = require_text(fields, name)
    if (size := len(found.encode("utf-8", "surrogatepass"))) > bytes_max:
        raise Rejected(f"field {name!r} has {size} bytes; at most {bytes_max}")
    if (at := found.find("\x00")) >= 0:
        raise Rejected(f"field {name!r} has a NUL at character {at}")
    return found

"""The mapping of a message's fields: which is the id, the key, the event time, the text.

Shared by all formats whose messages have fields. It is applied to the decoded message, a tree of
dicts, lists and plain values.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from sage_connectors.formats.paths import MISSING, SYNTAX, Path
from sage_connectors.formats.times import TimeFormat, timestamp_ms
from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.common.records import Record
from sage_flink.common.value_encoding import short_repr
from sage_flink.flow.formats import Decoder

#: In place of a path: the message's key, which is UTF-8.
KEY = "key"
ID_BYTES_MAX = 512
#: What a delete flag says when the record is a delete, in lower case.
DELETE_FLAGS = frozenset({"true", "1", "delete", "d"})


@dataclass(frozen=True)
class Fields:
    """Paths, see :mod:`~sage_connectors.formats.paths`, into a message or an exploded element.

    * ``explode``: an array; each element is a record. ``@`` is the element then, ``$`` the message.
      Its id without ``id`` is the message's with the element's index.
    * ``id``: text or a whole number, or ``key``, the message's key. Without it the id is the
      message's place, ``topic/partition/offset``. A message whose id is absent is rejected.
    * ``key``: text, a whole number or bytes; without it, or where it is null, the message's key.
    * ``event_time``, in ``time_format``; without it, or where it is null, the message's time.
    * ``text``, and ``title`` if there is one: the record is a document then, with the value
      ``{"doc", "title", "text"}`` as ``chunk()`` takes it. Without it the value is the element.
    * ``delete``: a flag; the record is a delete of its document where it is true, 1, ``true``,
      ``delete`` or ``d`` (in any case). It needs an id.

    A tombstone (a message without a value) is the delete of the document that its key names in
    UTF-8, where ids are mapped. Otherwise it is rejected: no record can have its id.

    Raises:
        ConfigError: a path cannot be read, or ``delete`` or ``title`` is on its own.
    """

    explode: str = ""
    id: str = ""
    key: str = ""
    event_time: str = ""
    time_format: TimeFormat = "auto"
    text: str = ""
    title: str = ""
    delete: str = ""

    def __post_init__(self) -> None:
        for name in ("explode", "id", "key", "event_time", "text", "title", "delete"):
            path = getattr(self, name)
            try:
                if path and not (name == "id" and path == KEY):
                    Path.parse(path)
            except ConfigError as error:
                raise ConfigError(f"fields: {name} {error}") from error
        if self.time_format not in get_args(TimeFormat):
            words = ", ".join(get_args(TimeFormat))
            got = self.time_format
            raise ConfigError(f"fields: time_format must be one of {words}, got {got!r}")
        for name, needed in (("delete", "id"), ("title", "text")):
            if getattr(self, name) and not getattr(self, needed):
                raise ConfigError(f"fields: {name} needs {needed}, {SYNTAX}")

    @property
    def emits_deletes(self) -> bool:
        """Whether a message may be a delete: where ids are mapped, a tombstone is one."""
        return bool(self.id)

    def decoder(self, tree: Callable[[Record], Any]) -> Decoder:
        """From a message to its records, by its tree; a tombstone has none."""

        def decode(message: Record) -> tuple[Record, ...]:
            if message.value is None:
                return (self.tombstone(message),)
            return tuple(self.records_of(message, tree(message)))

        return decode

    def records_of(self, message: Record, root: Any) -> Iterator[Record]:
        """The records of a decoded message.

        Raises:
            Rejected: a field is absent or of the wrong type.
        """
        if not self.explode:
            yield self._record(message, self._id(message, message.id, root, root), root, root)
            return
        elements = self._paths["explode"].find(root)
        if elements is MISSING or elements is None:
            return
        if not isinstance(elements, list):
            raise Rejected(f"{self.explode} must be an array, got {short_repr(elements)}")
        for index, element in enumerate(elements):
            id_ = self._id(message, f"{message.id}/{index}", root, element)
            yield self._record(message, id_, root, element)

    def tombstone(self, message: Record) -> Record:
        """The delete that a message without a value means.

        Raises:
            Rejected: ids are not mapped, or the message has no key that names a document.
        """
        if not self.id:
            raise Rejected(
                "the message has no value (a tombstone), and ids are not mapped: set fields.id"
            )
        document = _key_text(message)
        return message.delete_of(document, id=document)

    @cached_property
    def _paths(self) -> dict[str, Path]:
        names = ("explode", "id", "key", "event_time", "text", "title", "delete")
        paths = {name: getattr(self, name) for name in names}
        return {name: Path.parse(path) for name, path in paths.items() if path and path != KEY}

    def record_of(self, message: Record, root: Any, element: Any) -> Record:
        """The record of ``element`` in ``root``, with the message's id.

        Raises:
            Rejected: a field is absent or of the wrong type.
        """
        return self._record(message, message.id, root, element)

    def _record(self, message: Record, id_: str, root: Any, element: Any) -> Record:
        record = message.replace(
            id=id_,
            key=self._key(message, root, element),
            timestamp_ms=self._time(message, root, element),
        )
        if self.delete and _is_delete(self._find("delete", root, element)):
            return record.delete_of(id_, id=id_)
        return record.replace(value=self._value(id_, root, element))

    def _find(self, name: str, root: Any, element: Any) -> Any:
        """The value at a path; None where it is absent."""
        path = self._paths.get(name)
        if path is None:
            return None
        found = path.find(element if path.of_element else root)
        return None if found is MISSING else found

    def _id(self, message: Record, place: str, root: Any, element: Any) -> str:
        if not self.id:
            return place
        if self.id == KEY:
            return _key_text(message)
        return text_id(self._find("id", root, element), self.id)

    def _key(self, message: Record, root: Any, element: Any) -> bytes | None:
        found = self._find("key", root, element)
        if found is None:
            return message.key
        if isinstance(found, bytes):
            return found
        return text_id(found, self.key).encode()

    def _time(self, message: Record, root: Any, element: Any) -> int:
        found = self._find("event_time", root, element)
        return message.timestamp_ms if found is None else timestamp_ms(found, self.time_format)

    def _value(self, id_: str, root: Any, element: Any) -> Any:
        if not self.text:
            return element
        text = self._find("text", root, element)
        if not isinstance(text, str) or not text.strip():
            raise Rejected(f"{self.text} must be text that is not empty, got {short_repr(text)}")
        title = self._find("title", root, element)
        if title is not None and not isinstance(title, str):
            raise Rejected(f"{self.title} must be text, got {short_repr(title)}")
        return {"doc": id_, "title": title if title and title.strip() else id_, "text": text}


def text_id(value: Any, where: str) -> str:
    """An id or key as text: a text that is not blank, or a whole number.

    Raises:
        Rejected: it is another value, or has more than 512 bytes.
    """
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**64:
        return str(value)
    if not isinstance(value, str) or not value.strip() or "\x00" in value:
        raise Rejected(f"{where} must be text or a whole number, got {short_repr(value)}")
    if (size := len(value.encode("utf-8", "surrogatepass"))) > ID_BYTES_MAX:
        raise Rejected(f"{where} has {size} bytes; at most {ID_BYTES_MAX}")
    return value


def _key_text(message: Record) -> str:
    if not message.key:
        raise Rejected("the message has no key, which names its document")
    try:
        return text_id(message.key.decode(), "the key")
    except UnicodeDecodeError as error:
        raise Rejected(f"the key is not valid UTF-8: {message.key!r:.100}") from error


def _is_delete(flag: Any) -> bool:
    if isinstance(flag, bool):
        return flag
    return isinstance(flag, int | str) and str(flag).strip().lower() in DELETE_FLAGS

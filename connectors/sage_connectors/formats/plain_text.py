"""Messages as they are: raw bytes, and text in one encoding."""

import codecs
from dataclasses import dataclass, field

from sage_connectors.formats.fields import Fields
from sage_connectors.formats.plain_json import require_bytes
from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.common.records import Record
from sage_flink.flow.formats import Decoder, Encoder


@dataclass(frozen=True)
class Raw:
    """The bytes of the message; None for a tombstone. The same as no format at all."""

    @property
    def emits_deletes(self) -> bool:
        """False: a tombstone stays a record without a value."""
        return False

    def decoder(self) -> Decoder:
        """Messages as they are."""
        return lambda message: (message,)

    def encoder(self, topic: str) -> Encoder:
        """Bytes as they are."""

        def encode(record: Record) -> bytes:
            return require_bytes(record.value)

        return encode


@dataclass(frozen=True)
class Text:
    """Text in ``encoding``, a name that Python knows; the path ``$`` is the whole text.

    A byte order mark of UTF-8 is removed.

    >>> decode = Text(Fields(id="key", text="$")).decoder()
    >>> [record.value["text"] for record in decode(Record("t/0/1", b"Oak", key=b"a"))]
    ['Oak']
    """

    fields: Fields = field(default_factory=Fields)
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        require_encoding("text", self.encoding)

    @property
    def emits_deletes(self) -> bool:
        """Whether ids are mapped."""
        return self.fields.emits_deletes

    def decoder(self) -> Decoder:
        """Messages into records."""

        def decode(message: Record) -> tuple[Record, ...]:
            if message.value is None:
                return (self.fields.tombstone(message),)
            return tuple(self.fields.records_of(message, decode_text(message.value, self.encoding)))

        return decode

    def encoder(self, topic: str) -> Encoder:
        """Texts into bytes."""

        def encode(record: Record) -> bytes:
            if not isinstance(record.value, str):
                raise Rejected(f"the value must be text, got {type(record.value).__name__}")
            try:
                return record.value.encode(self.encoding)
            except UnicodeEncodeError as error:
                raise Rejected(f"the text has no form in {self.encoding}: {error}") from error

        return encode


def require_encoding(where: str, encoding: str) -> None:
    """Check that Python knows the encoding.

    Raises:
        ConfigError: it does not.
    """
    try:
        "".encode(encoding)
        codecs.lookup(encoding)
    except (LookupError, TypeError) as error:
        raise ConfigError(
            f"{where}: encoding must be one that Python knows, such as utf-8, got {encoding!r:.100}"
        ) from error


def decode_text(raw: object, encoding: str) -> str:
    """The text of a message.

    Raises:
        Rejected: it is not in this encoding.
    """
    try:
        text = require_bytes(raw).decode(encoding)
    except UnicodeError as error:
        raise Rejected(f"not valid {encoding}: {error}") from error
    return text.removeprefix("\ufeff")

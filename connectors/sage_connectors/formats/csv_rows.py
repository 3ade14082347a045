"""CSV: one or more rows in a message."""

import csv
import io
from dataclasses import dataclass, field

from sage_connectors.formats.fields import Fields
from sage_connectors.formats.plain_text import decode_text, require_encoding
from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.common.records import Record
from sage_flink.flow.formats import Decoder

FIELD_CHARS_MAX = 32 << 20


@dataclass(frozen=True)
class Csv:
    """Rows of comma-separated values (RFC 4180), each a record with the texts of its columns.

    ``columns`` names them; without, the first row of each message does. An empty value is an empty
    text. A message of one row is one record with the message's id; of several, ``fields.id`` or the
    row's number makes them apart. A row with more or fewer values than columns rejects its message.

    >>> decode = Csv(columns=("id", "name"), fields=Fields(id="$.id")).decoder()
    >>> [record.value for record in decode(Record("t/0/1", b'7,"Oak, old"'))]
    [{'id': '7', 'name': 'Oak, old'}]
    """

    columns: tuple[str, ...] = ()
    delimiter: str = ","
    encoding: str = "utf-8"
    fields: Fields = field(default_factory=Fields)

    def __post_init__(self) -> None:
        require_encoding("csv", self.encoding)
        if not isinstance(self.delimiter, str) or len(self.delimiter) != 1:
            raise ConfigError(f"csv: delimiter must be one character, got {self.delimiter!r:.100}")
        if self.fields.explode:
            raise ConfigError("csv: fields.explode must be left out; each row is a record")
        if len(set(self.columns)) != len(self.columns):
            raise ConfigError(f"csv: columns must differ, got {self.columns!r:.200}")

    @property
    def emits_deletes(self) -> bool:
        """Whether ids are mapped."""
        return self.fields.emits_deletes

    def decoder(self) -> Decoder:
        """Messages into records."""
        csv.field_size_limit(FIELD_CHARS_MAX)  # of the whole process; Python's own is 128 KiB

        def decode(message: Record) -> tuple[Record, ...]:
            if message.value is None:
                return (self.fields.tombstone(message),)
            rows = self._rows(decode_text(message.value, self.encoding))
            if len(rows) == 1:
                return tuple(self.fields.records_of(message, rows[0]))
            return tuple(
                record
                for number, row in enumerate(rows)
                for record in self.fields.records_of(_with_number(message, number), row)
            )

        return decode

    def _rows(self, text: str) -> list[dict[str, str]]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True)
        try:
            rows = [row for row in reader if row]
        except csv.Error as error:
            raise Rejected(f"not CSV: line {reader.line_num}: {error}") from error
        columns = list(self.columns)
        if not columns:
            columns, rows = (rows[0], rows[1:]) if rows else ([], [])
            if not columns or len(set(columns)) != len(columns):
                raise Rejected(f"the first row must name the columns, got {columns!r:.200}")
        for row in rows:
            if len(row) != len(columns):
                raise Rejected(
                    f"a row has {len(row)} values for {len(columns)} columns: {row!r:.200}"
                )
        return [dict(zip(columns, row, strict=True)) for row in rows]


def _with_number(message: Record, number: int) -> Record:
    return message.replace(id=f"{message.id}/{number}")

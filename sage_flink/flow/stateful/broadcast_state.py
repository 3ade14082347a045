"""The rows of a broadcast join: the truth that Flink's operators are tested against. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record, encode_valid
from sage_flink.flow.stateful.broadcasts import ROWS_BYTES_MAX, BroadcastJoin
from sage_flink.flow.stateful.keys import key_by_field, key_flaw


class BroadcastRows:
    """The rows by key, each change a version of its own."""

    def __init__(self, node: BroadcastJoin) -> None:
        self._node = node
        self._version = 0
        self._rows: dict[bytes, Mapping[str, Any]] = {
            key.encode(): row for key, row in node.initial.items()
        }
        self._sizes: dict[bytes, int] = {}

    def change(self, record: Record) -> None:
        """Set the row of the record's key, or end it.

        Raises:
            Rejected: the record is not a row; nothing has changed.
        """
        if flaw := key_flaw(record, takes_deletes=True):
            raise Rejected(flaw)
        assert record.key is not None
        if record.kind == "delete":
            _text(record.key)
            self._rows.pop(record.key, None)
            self._sizes.pop(record.key, None)
        else:
            self._sizes[record.key] = self._checked_size(record.key, record.value)
            self._rows[record.key] = record.value
        self._version += 1

    def _checked_size(self, key: bytes, row: Any) -> int:
        _text(key)
        if not isinstance(row, Mapping):
            raise Rejected("its value must be a map, the row of its key")
        own = len(key) + len(msgspec.msgpack.encode(row))
        size = sum(self._sizes.values()) - self._sizes.get(key, 0) + own
        if size > ROWS_BYTES_MAX:
            raise Rejected(
                f"with it all rows would have {size} bytes, at most {ROWS_BYTES_MAX} are kept in "
                "each subtask"
            )
        return own

    def enrich(self, record: Record) -> Record:
        """The record with its rows; a delete as it is.

        Raises:
            Rejected: the record cannot have them.
        """
        if record.kind == "delete":
            return record
        found: dict[str, Any] = {"version": self._version}
        if self._node.field:
            key = key_by_field(record, self._node.field).key
            assert key is not None
            found["row"] = self._rows.get(key)
        else:
            found["rows"] = {key.decode(): self._rows[key] for key in sorted(self._rows)}
        into = self._node.output_field
        if not isinstance(record.value, Mapping):
            raise Rejected(f"its value must be a map, to take the field {into!r}")
        made = record.replace(value={**record.value, into: found})
        encode_valid(made)
        return made


def _text(key: bytes) -> None:
    try:
        key.decode()
    except UnicodeDecodeError as error:
        raise Rejected("its key is not text in UTF-8") from error

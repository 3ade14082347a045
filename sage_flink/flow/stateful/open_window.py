"""A window that takes records, and the record of its result. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from sage_flink.common.records import Record
from sage_flink.flow.stateful.aggregates import aggregate, count_omitted
from sage_flink.flow.stateful.nodes import Window
from sage_flink.flow.stateful.windows import Early

#: A longer key, or one that is no text, is a hash in the id.
_KEY_BYTES_IN_ID = 200


@dataclass(slots=True)
class OpenWindow:
    """The records of a window, and what its next early result waits for."""

    records: list[Record] = field(default_factory=list)
    #: The watermark that brings it, and how many records were taken since the last result.
    due_ms: int | None = None
    unseen: int = 0

    def add(self, record: Record, early: Early | None, watermark_ms: int | None) -> bool:
        """Add a record before the end of the window; whether that brings an early result."""
        self.records.append(record)
        if early is None:
            return False
        self.unseen += 1
        if early.every_records is None:
            due_ms = early.due_ms(record.timestamp_ms, watermark_ms)
            self.due_ms = due_ms if self.due_ms is None else min(self.due_ms, due_ms)
            return False
        return self.unseen >= early.every_records

    def is_due(self, watermark_ms: int) -> bool:
        """Whether the watermark brings an early result."""
        return self.due_ms is not None and self.due_ms <= watermark_ms

    def await_next(self) -> None:
        """Wait for the next early result."""
        self.due_ms, self.unseen = None, 0

    def absorb(self, other: "OpenWindow") -> None:
        """Take over all of another window's."""
        self.records += other.records
        self.unseen += other.unseen
        self.due_ms = min((d for d in (self.due_ms, other.due_ms) if d is not None), default=None)


def window_record(
    node: Window,
    key: bytes,
    records: Sequence[Record],
    *,
    place: str,
    fields: Mapping[str, int],
    is_early: bool,
) -> Record:
    """The record of a window; ``fields`` are its place and time, with ``end_ms``.

    Its id is that of the step, ``place`` and the key, the same whenever the window is emitted, so
    an update takes the place of the result before. Its time is the window's last millisecond.
    """
    text = _text(key)
    in_id = text if text is not None and len(key) <= _KEY_BYTES_IN_ID else _hash(key)
    value = {"key": key if text is None else text, **fields}
    if node.early is not None:
        value["early"] = is_early
    for name, spec in node.aggregates.items():
        value[name] = aggregate(spec, records)
        if left := count_omitted(spec, records):
            value[f"{name}_omitted"] = left
    id_ = f"{node.name}/{place}{in_id}"
    return Record(id_, value, fields["end_ms"] - 1, key, {}, id_)


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _hash(key: bytes) -> str:
    return f"sha256:{sha256(key).hexdigest()}"

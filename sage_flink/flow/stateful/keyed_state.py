"""The state of the keyed steps: the truth that Flink's operators are tested against. Pure."""

from collections import Counter
from typing import Literal

import msgspec

from sage_flink.common.records import Record
from sage_flink.flow.stateful.fields import read_field
from sage_flink.flow.stateful.keyed_nodes import ChangesOnly, RateLimit
from sage_flink.flow.stateful.windows import milliseconds


class LastValues:
    """The value of each key's last record that passed, and until when it counts."""

    def __init__(self, node: ChangesOnly) -> None:
        self._node = node
        self._last: dict[bytes, tuple[bytes, float]] = {}

    def is_change(self, record: Record, now_s: float) -> bool:
        """Whether the record passes, at ``now_s`` of a clock that never runs backwards."""
        assert record.key is not None
        value = msgspec.msgpack.encode(read_field(record.value, self._node.field))
        last, until_s = self._last.get(record.key, (b"", 0.0))
        if value == last and now_s < until_s:
            return False
        ttl_s = float("inf") if self._node.ttl_s is None else self._node.ttl_s
        self._last[record.key] = value, now_s + ttl_s
        return True


class PassedRecords:
    """How many records have passed a rate limit, by the start of their window and by key."""

    def __init__(self, node: RateLimit) -> None:
        self._node = node
        self._size_ms = milliseconds(node.per_s)
        self._watermark_ms: int | None = None
        self._passed: dict[int, Counter[bytes]] = {}

    def add(self, record: Record) -> Literal["passes", "over", "late"]:
        """What becomes of the record; where it passes, it is counted."""
        assert record.key is not None
        start = record.timestamp_ms - record.timestamp_ms % self._size_ms
        if self._has_ended(start):
            return "late"
        passed = self._passed.setdefault(start, Counter())
        if passed[record.key] == self._node.records_max:
            return "over"
        passed[record.key] += 1
        return "passes"

    def advance(self, watermark_ms: int) -> None:
        """Forget the windows that end at this watermark."""
        self._watermark_ms = watermark_ms
        for start in [start for start in self._passed if self._has_ended(start)]:
            del self._passed[start]

    def _has_ended(self, start_ms: int) -> bool:
        latest = self._watermark_ms
        return latest is not None and start_ms + self._size_ms - 1 <= latest

"""The records that wait in a join: the truth that Flink's operator is tested against. Pure."""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from hashlib import sha256
from heapq import heappop, heappush
from typing import Literal

from sage_flink.common.records import Record
from sage_flink.flow.stateful.joins import Join
from sage_flink.flow.stateful.watermarks import END_MS

Side = Literal["left", "right"]
#: A longer id is a hash.
_ID_BYTES_MAX = 200
_BETWEEN = "~"


@dataclass(slots=True)
class _Waiting:
    record: Record
    vector: tuple[float, ...] = ()
    has_met: bool = False


class JoinState:
    """The records of both inputs of a join, by key, in the order of their time and arrival."""

    def __init__(self, node: Join) -> None:
        self._node = node
        self._watermarks_ms: dict[Side, int] = {"left": -END_MS, "right": -END_MS}
        self._waiting: dict[Side, dict[bytes, list[_Waiting]]] = {"left": {}, "right": {}}
        self._ends: list[tuple[int, bytes, Side]] = []  # a heap, with an entry for each record

    def add(self, side: Side, record: Record) -> list[Record] | None:
        """The pairs of a record of this input, which the join can take; None where it is late.

        They are in the order of time and arrival of the records that it meets.
        """
        node, time_ms, key = self._node, record.timestamp_ms, record.key
        assert key is not None
        earlier_ms, later_ms = (
            (node.before_ms, node.after_ms) if side == "left" else (node.after_ms, node.before_ms)
        )
        if min(time_ms + later_ms, END_MS) <= self._watermarks_ms[side]:
            return None
        similar = node.similar
        added = _Waiting(record, similar.unit_vector(record) if similar else ())
        insort(self._waiting[side].setdefault(key, []), added, key=_time_ms)
        end_ms = min(time_ms + node.before_ms + node.after_ms, END_MS)
        heappush(self._ends, (end_ms, key, side))
        others = self._waiting["right" if side == "left" else "left"].get(key, [])
        start = bisect_left(others, time_ms - earlier_ms, key=_time_ms)
        end = bisect_right(others, time_ms + later_ms, key=_time_ms)
        pairs = []
        for other in others[start:end]:
            if similar and not similar.holds(added.vector, other.vector):
                continue
            added.has_met = other.has_met = True
            pair = (record, other.record) if side == "left" else (other.record, record)
            pairs.append(join_record(node, *pair))
        return pairs

    def advance(self, side: Side, watermark_ms: int) -> tuple[list[Record], int]:
        """What the watermark of one input emits, and the watermark of the output behind it.

        That are the records that met no other, by time and key, where the join emits them.
        """
        self._watermarks_ms[side] = watermark_ms
        both_ms = min(self._watermarks_ms.values())
        alone = []
        while self._ends and self._ends[0][0] <= both_ms:
            _, key, of = heappop(self._ends)
            waiting = self._waiting[of][key]
            earliest = waiting.pop(0)
            if not waiting:
                del self._waiting[of][key]
            if not earliest.has_met and of in self._node.emitted_alone:
                pair = (earliest.record, None) if of == "left" else (None, earliest.record)
                alone.append(join_record(self._node, *pair))
        return alone, both_ms if both_ms == END_MS else both_ms - self._node.output_delay_ms


def join_record(node: Join, left: Record | None, right: Record | None) -> Record:
    """The record of a pair, or of one record that met no other."""
    first, *more = [record for record in (left, right) if record is not None]
    headers = {**more[0].headers, **first.headers} if more else first.headers
    return Record(
        joined_id(node.name, left.id if left else None, right.id if right else None),
        {"left": left.value if left else None, "right": right.value if right else None},
        max(record.timestamp_ms for record in (first, *more)),
        first.key,
        headers,
        first.origin or first.id,
    )


def joined_id(step: str, left: str | None, right: str | None) -> str:
    """The id of the result of these two records, None for one that is missing.

    >>> joined_id("paid", "orders/0/5", "payments/1/7"), joined_id("paid", "orders/0/5", None)
    ('paid/orders/0/5~payments/1/7', 'paid/orders/0/5~')
    >>> joined_id("paid", "~", "")
    'paid/sha256:ad610f8a37ff80e5eda3709c60fbb5db20722359616fd2e0afbc4dbe67959832'
    """
    is_clear = left != "" and right != "" and _BETWEEN not in (left or "") + (right or "")
    readable = f"{step}/{left or ''}{_BETWEEN}{right or ''}"
    if is_clear and len(_utf8(readable)) <= _ID_BYTES_MAX:
        return readable
    return f"{step}/sha256:{sha256(_with_length(left) + _with_length(right)).hexdigest()}"


def _with_length(id_: str | None) -> bytes:
    """The id behind its length, so that two of them stay distinct."""
    if id_ is None:
        return b"-"
    content = _utf8(id_)
    return b"%d:%b" % (len(content), content)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _time_ms(waiting: _Waiting) -> int:
    return waiting.record.timestamp_ms

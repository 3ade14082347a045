"""The windows of one step: the truth that Flink's window operator is tested against. Pure.

It keeps the records themselves, so it is for the in-process target.
"""

from collections.abc import Sequence
from hashlib import sha256

from sage_flink.common.records import Record
from sage_flink.flow.stateful.aggregates import (
    OF_NUMBERS,
    aggregate,
    count_omitted,
    is_finite_number,
)
from sage_flink.flow.stateful.fields import read_field
from sage_flink.flow.stateful.keys import key_flaw
from sage_flink.flow.stateful.nearest import Nearest
from sage_flink.flow.stateful.nodes import Window
from sage_flink.flow.stateful.windows import Session, Sliding, Tumbling, milliseconds

#: A longer key, or one that is no text, is a hash in the id.
_KEY_BYTES_IN_ID = 200
#: From the first millisecond to the one behind the last.
_Span = tuple[int, int]


def window_flaw(node: Window, record: Record) -> str:
    """Why a window cannot take the record; empty where it can."""
    if flaw := key_flaw(record):
        return flaw
    for spec in node.aggregates.values():
        if isinstance(spec, Nearest) and (flaw := spec.flaw(record)):
            return flaw
        if isinstance(spec, OF_NUMBERS):
            value = read_field(record.value, spec.field)
            if value is not None and not is_finite_number(value):
                return f"its field {spec.field!r} must be a finite number"
    return ""


class WindowState:
    """The open windows of a step, by key."""

    def __init__(self, node: Window) -> None:
        self._node = node
        self._lateness_ms = milliseconds(node.lateness_s)
        self._watermark_ms: int | None = None
        self._open: dict[bytes, dict[_Span, list[Record]]] = {}

    def add(self, record: Record) -> list[Record] | None:
        """Add a record that the window can take; None where it is late.

        The results are those of windows that had ended and take late records.
        """
        assert record.key is not None
        spans = self._open.setdefault(record.key, {})
        updated = [span for span in self._spans(record, spans) if not self._is_over(span)]
        for span in updated:
            spans.setdefault(span, []).append(record)
        if not spans:
            del self._open[record.key]
        if not updated:
            return None
        ended = [span for span in updated if self._has_ended(span)]
        return [self._result(record.key, span, spans[span]) for span in ended]

    def advance(self, watermark_ms: int) -> list[Record]:
        """The results of the windows that end at this watermark, by their end and key."""
        before, self._watermark_ms = self._watermark_ms, watermark_ms
        ended = [
            (span[1], key, span)
            for key, spans in self._open.items()
            for span in spans
            if self._has_ended(span) and (before is None or span[1] - 1 > before)
        ]
        results = [self._result(key, span, self._open[key][span]) for _, key, span in sorted(ended)]
        for key, spans in list(self._open.items()):
            for span in [span for span in spans if self._is_over(span)]:
                del spans[span]
            if not spans:
                del self._open[key]
        return results

    def _spans(self, record: Record, spans: dict[_Span, list[Record]]) -> list[_Span]:
        match windows := self._node.windows:
            case Tumbling() | Sliding():
                size = milliseconds(windows.size_s)
                return [(s, s + size) for s in windows.starts_ms(record.timestamp_ms)]
            case Session(gap_s=gap_s):
                return [self._session(record.timestamp_ms, milliseconds(gap_s), spans)]

    def _session(self, timestamp_ms: int, gap_ms: int, spans: dict[_Span, list[Record]]) -> _Span:
        """The session that the record is in, made of all sessions that it joins."""
        start, end = timestamp_ms, timestamp_ms + gap_ms
        joined = [span for span in spans if span[0] <= end and start <= span[1]]
        whole = (min([start, *(s for s, _ in joined)]), max([end, *(e for _, e in joined)]))
        if joined and not self._is_over(whole):
            records = [record for span in joined for record in spans.pop(span)]
            spans[whole] = records
        return whole

    def _has_ended(self, span: _Span) -> bool:
        return self._watermark_ms is not None and span[1] - 1 <= self._watermark_ms

    def _is_over(self, span: _Span) -> bool:
        """Whether the window takes no late record any more."""
        latest = self._watermark_ms
        return latest is not None and span[1] - 1 + self._lateness_ms <= latest

    def _result(self, key: bytes, span: _Span, records: Sequence[Record]) -> Record:
        return window_record(self._node, key, span, records)


def window_record(
    node: Window, key: bytes, span: tuple[int, int], records: Sequence[Record]
) -> Record:
    """The record of a window from ``span[0]`` up to, not including, ``span[1]`` milliseconds.

    Its id is ``step/start_ms/key``, the same whenever the window is emitted, so an update takes
    the place of the result before.
    """
    start, end = span
    text = _text(key)
    in_id = text if text is not None and len(key) <= _KEY_BYTES_IN_ID else _hash(key)
    value = {"key": key if text is None else text, "start_ms": start, "end_ms": end}
    for name, spec in node.aggregates.items():
        value[name] = aggregate(spec, records)
        if left := count_omitted(spec, records):
            value[f"{name}_omitted"] = left
    id_ = f"{node.name}/{start}/{in_id}"
    return Record(id_, value, end - 1, key, {}, id_)


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _hash(key: bytes) -> str:
    return f"sha256:{sha256(key).hexdigest()}"

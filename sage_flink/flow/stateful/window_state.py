"""The windows of one step by time: the truth that Flink's operator is tested against. Pure.

It keeps the records themselves, so it is for the in-process target.
"""

from sage_flink.common.records import Record
from sage_flink.flow.stateful.aggregates import OF_NUMBERS, is_finite_number
from sage_flink.flow.stateful.fields import read_field
from sage_flink.flow.stateful.keys import key_flaw
from sage_flink.flow.stateful.nearest import Nearest
from sage_flink.flow.stateful.nodes import Window
from sage_flink.flow.stateful.open_window import OpenWindow, window_record
from sage_flink.flow.stateful.windows import (
    CountTumbling,
    Global,
    Session,
    Sliding,
    Tumbling,
    milliseconds,
)

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
        self._open: dict[bytes, dict[_Span, OpenWindow]] = {}

    def add(self, record: Record) -> list[Record] | None:
        """Add a record that the window can take; None where it is late.

        The results are early ones, and those of windows that had ended and take late records.
        """
        assert record.key is not None
        spans = self._open.setdefault(record.key, {})
        updated = [span for span in self._spans(record, spans) if not self._is_over(span)]
        emitting = [span for span in updated if self._add(record, span, spans)]
        if not spans:
            del self._open[record.key]
        if not updated:
            return None
        return [self._result(record.key, span, spans[span]) for span in emitting]

    def _add(self, record: Record, span: _Span, spans: dict[_Span, OpenWindow]) -> bool:
        """Whether the window emits."""
        has_ended = self._has_ended(span)
        early = None if has_ended else self._node.early
        window = spans.setdefault(span, OpenWindow())
        return window.add(record, early, self._watermark_ms) or has_ended

    def advance(self, watermark_ms: int) -> list[Record]:
        """The results at this watermark, last and early ones, by the time of each and its key."""
        before, self._watermark_ms = self._watermark_ms, watermark_ms
        emitting = [
            (due_ms, key, span)
            for key, spans in self._open.items()
            for span, window in spans.items()
            if (due_ms := self._due_ms(span, window, before)) is not None
        ]
        results = [
            self._result(key, span, self._open[key][span]) for _, key, span in sorted(emitting)
        ]
        for key, spans in list(self._open.items()):
            for span in [span for span in spans if self._is_over(span)]:
                del spans[span]
            if not spans:
                del self._open[key]
        return results

    def _due_ms(self, span: _Span, window: OpenWindow, before_ms: int | None) -> int | None:
        """When the window emits on the way from the watermark ``before_ms``; None where never."""
        if self._has_ended(span):
            is_ending = before_ms is None or span[1] - 1 > before_ms
            return span[1] - 1 if is_ending else None
        assert self._watermark_ms is not None
        return window.due_ms if window.is_due(self._watermark_ms) else None

    def _spans(self, record: Record, spans: dict[_Span, OpenWindow]) -> list[_Span]:
        match windows := self._node.windows:
            case Tumbling() | Sliding():
                size = milliseconds(windows.size_s)
                return [(s, s + size) for s in windows.starts_ms(record.timestamp_ms)]
            case Session(gap_s=gap_s):
                return [self._session(record.timestamp_ms, milliseconds(gap_s), spans)]
            case CountTumbling() | Global():
                raise AssertionError("a window that does not end with time: CountWindowState")

    def _session(self, timestamp_ms: int, gap_ms: int, spans: dict[_Span, OpenWindow]) -> _Span:
        """The session that the record is in, the union of all sessions that it joins."""
        start, end = timestamp_ms, timestamp_ms + gap_ms
        joined = [span for span in spans if span[0] <= end and start <= span[1]]
        whole = (min([start, *(s for s, _ in joined)]), max([end, *(e for _, e in joined)]))
        if joined and not self._is_over(whole):
            session = OpenWindow()
            for span in joined:
                session.absorb(spans.pop(span))
            spans[whole] = session
        return whole

    def _has_ended(self, span: _Span) -> bool:
        return self._watermark_ms is not None and span[1] - 1 <= self._watermark_ms

    def _is_over(self, span: _Span) -> bool:
        """Whether the window takes no late record any more."""
        latest = self._watermark_ms
        return latest is not None and span[1] - 1 + self._lateness_ms <= latest

    def _result(self, key: bytes, span: _Span, window: OpenWindow) -> Record:
        window.await_next()
        start_ms, end_ms = span
        return window_record(
            self._node,
            key,
            window.records,
            place=f"{start_ms}/",
            fields={"start_ms": start_ms, "end_ms": end_ms},
            is_early=not self._has_ended(span),
        )

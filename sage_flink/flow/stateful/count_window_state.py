"""The windows of one step that do not end with time: the truth for Flink's operator. Pure."""

from collections import Counter

from sage_flink.common.records import Record
from sage_flink.flow.stateful.nodes import Window
from sage_flink.flow.stateful.open_window import OpenWindow, window_record
from sage_flink.flow.stateful.watermarks import END_MS
from sage_flink.flow.stateful.windows import CountTumbling


class CountWindowState:
    """The open window of each key, which ends with its last record, or with the input."""

    def __init__(self, node: Window) -> None:
        self._node = node
        self._watermark_ms: int | None = None
        self._open: dict[bytes, OpenWindow] = {}
        self._ended = Counter[bytes]()

    def add(self, record: Record) -> list[Record]:
        """Add a record that the window can take: the result that it brings, or none."""
        key, windows = record.key, self._node.windows
        assert key is not None
        window = self._open.setdefault(key, OpenWindow())
        emits_early = window.add(record, self._node.early, self._watermark_ms)
        if isinstance(windows, CountTumbling) and len(window.records) == windows.records:
            return [self._end(key)]
        return [self._result(key, is_early=True)] if emits_early else []

    def advance(self, watermark_ms: int) -> list[Record]:
        """The results at this watermark: early ones; the last of each key at the input's end."""
        self._watermark_ms = watermark_ms
        if watermark_ms == END_MS:
            return [self._end(key) for key in sorted(self._open)]
        due = [(w.due_ms, key) for key, w in self._open.items() if w.is_due(watermark_ms)]
        return [self._result(key, is_early=True) for _, key in sorted(due)]

    def _end(self, key: bytes) -> Record:
        result = self._result(key, is_early=False)
        del self._open[key]
        self._ended[key] += 1
        return result

    def _result(self, key: bytes, *, is_early: bool) -> Record:
        window = self._open[key]
        window.await_next()
        times_ms = [record.timestamp_ms for record in window.records]
        fields = {"start_ms": min(times_ms), "end_ms": max(times_ms) + 1}
        place = ""
        if isinstance(self._node.windows, CountTumbling):
            place = f"{self._ended[key]}/"
            fields = {"index": self._ended[key], **fields}
        return window_record(
            self._node, key, window.records, place=place, fields=fields, is_early=is_early
        )

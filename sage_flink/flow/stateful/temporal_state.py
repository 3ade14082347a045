"""The versions and waiting records of a temporal join: the truth for Flink's operator. Pure."""

from heapq import heappop, heappush

from sage_flink.common.records import Record
from sage_flink.flow.stateful.join_state import Side
from sage_flink.flow.stateful.joins import TemporalJoin
from sage_flink.flow.stateful.watermarks import END_MS


class TemporalJoinState:
    """The left records that wait, and the versions of each key that one may still need."""

    def __init__(self, node: TemporalJoin) -> None:
        self._node = node
        self._watermarks_ms: dict[Side, int] = {"left": -END_MS, "right": -END_MS}
        self._waiting: dict[bytes, dict[int, list[Record]]] = {}
        self._versions: dict[bytes, dict[int, Record]] = {}
        self._times: list[tuple[int, bytes]] = []  # a heap, with an entry for each record

    def add(self, side: Side, record: Record) -> list[Record] | None:
        """No result: each waits for the watermark; None where the record is late."""
        time_ms, key = record.timestamp_ms, record.key
        assert key is not None
        if time_ms <= self._watermarks_ms[side]:
            return None
        if side == "left":
            self._waiting.setdefault(key, {}).setdefault(time_ms, []).append(record)
        else:
            self._versions.setdefault(key, {})[time_ms] = record
        heappush(self._times, (time_ms, key))
        return []

    def advance(self, side: Side, watermark_ms: int) -> tuple[list[Record], int]:
        """The results up to the watermark, by time and key, and the watermark behind them."""
        self._watermarks_ms[side] = watermark_ms
        both_ms = min(self._watermarks_ms.values())
        results: list[Record] = []
        while self._times and self._times[0][0] <= both_ms:
            results += self._at(*heappop(self._times))
        return results, both_ms

    def _at(self, time_ms: int, key: bytes) -> list[Record]:
        """The results of one time and key; versions that ended until then are dropped."""
        version = self._version_at(time_ms, key)
        waiting = self._waiting.get(key, {})
        records = waiting.pop(time_ms, [])
        if not waiting:
            self._waiting.pop(key, None)
        if version is None and self._node.how == "inner":
            return []
        right = None if version is None else version.value
        return [one.replace(value={"left": one.value, "right": right}) for one in records]

    def _version_at(self, time_ms: int, key: bytes) -> Record | None:
        versions = self._versions.get(key, {})
        times = sorted(ms for ms in versions if ms <= time_ms)
        newest = versions[times[-1]] if times else None
        is_deleted = newest is not None and newest.kind == "delete"
        for ended_ms in times if is_deleted else times[:-1]:
            del versions[ended_ms]
        if not versions:
            self._versions.pop(key, None)
        return None if is_deleted else newest

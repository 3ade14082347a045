"""The requests whose answers near-equal ones share: bounded by time, count and bytes. Pure.

>>> answers = SharedAnswers[str](threshold=0.9, within_s=60, answers_max=10)
>>> east, north = (struct.pack("<2f", *v) for v in ((1, 0), (0, 1)))
>>> answers.add(MergeKey(b"g", east), "first", now_s=0)
>>> answers.find(MergeKey(b"g", east), now_s=59), answers.find(MergeKey(b"g", north), now_s=59)
('first', None)
"""

import struct
from dataclasses import dataclass
from typing import Generic, TypeVar

from sage_flink.flow.merging.requests import MergeKey
from sage_flink.flow.vectors import ROUNDING, similarity

#: The bodies of answers that are kept, together.
ANSWER_BYTES_MAX = 64 << 20
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    key: MergeKey
    vector: tuple[float, ...]
    answer: T
    until_s: float
    size_bytes: int = 0


class SharedAnswers(Generic[T]):
    """The requests of the last ``within_s`` that were sent, with their answer or the promise of it.

    A request is compared with these alone, not with those that shared an answer: so a chain of
    near-equal requests does not drift away from the first one.
    """

    def __init__(self, threshold: float, within_s: float, answers_max: int) -> None:
        self._threshold, self._within_s, self._answers_max = threshold, within_s, answers_max
        self._entries: dict[int, _Entry[T]] = {}  # by the identity of the answer, oldest first
        self._groups: dict[bytes, list[_Entry[T]]] = {}
        self._size_bytes = 0

    def find(self, key: MergeKey, now_s: float) -> T | None:
        """The nearest answer of the group that is near enough; of equal ones the oldest."""
        self._forget(now_s)
        vector = _numbers(key.vector)
        nearest, best = None, self._threshold - ROUNDING
        for entry in self._groups.get(key.group, ()):
            found = similarity(vector, entry.vector)
            if found > best or (nearest is None and found == best):
                nearest, best = entry.answer, found
        return nearest

    def add(self, key: MergeKey, answer: T, now_s: float) -> None:
        """A request that is sent now."""
        entry = _Entry(key, _numbers(key.vector), answer, now_s + self._within_s)
        self._entries[id(answer)] = entry
        self._groups.setdefault(key.group, []).append(entry)
        self._forget(now_s)

    def keep(self, answer: T, size_bytes: int) -> None:
        """The answer of a request that was added is complete, and has ``size_bytes``."""
        if entry := self._entries.get(id(answer)):
            entry.size_bytes = size_bytes
            self._size_bytes += size_bytes

    def remove(self, answer: T) -> None:
        """Forget a request that was added: it has no answer."""
        if entry := self._entries.pop(id(answer), None):
            group = self._groups[entry.key.group]
            group.remove(entry)
            if not group:
                del self._groups[entry.key.group]
            self._size_bytes -= entry.size_bytes

    def _forget(self, now_s: float) -> None:
        while self._entries:
            oldest = next(iter(self._entries.values()))
            within = len(self._entries) <= self._answers_max
            if within and self._size_bytes <= ANSWER_BYTES_MAX and oldest.until_s > now_s:
                return
            self.remove(oldest.answer)


def _numbers(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // 4}f", vector)

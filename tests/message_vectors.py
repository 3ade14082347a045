"""A message and the records that its format makes of it."""

from dataclasses import dataclass
from typing import Any

from sage_flink.common import Record


@dataclass(frozen=True)
class Vector:
    """One message; ``becomes`` are (id, kind, timestamp, value), or a part of the reason."""

    value: bytes | None
    becomes: tuple[tuple[Any, ...], ...] | str
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    def message(self, topic: str, offset: int) -> Record:
        place = f"{topic}/0/{offset}"
        return Record(place, self.value, 5, self.key, dict(self.headers), place)


def upsert(id_: str, value: Any, timestamp_ms: int = 5) -> tuple[Any, ...]:
    return (id_, "upsert", timestamp_ms, value)


def delete(id_: str, timestamp_ms: int = 5) -> tuple[Any, ...]:
    return (id_, "delete", timestamp_ms, None)


def doc(id_: str, text: str, title: str = "", at: int = 5) -> tuple[Any, ...]:
    return upsert(id_, {"doc": id_, "title": title or id_, "text": text}, at)

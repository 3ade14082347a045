"""Watch of the answers topic: records committed answers with their arrival times."""

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import msgspec

from sage_connectors.kafka_client import follow


@dataclass(slots=True)
class AnswerWatch:
    """Read-committed reader of ``topic`` on its own thread, active during the block."""

    topic: str
    #: Arrival on the monotonic clock, id, the answer's checksum; in order of arrival.
    seen: list[tuple[float, str, str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)

    def ids(self) -> set[str]:
        """The ids seen so far."""
        return {id_ for _, id_, _ in list(self.seen)}

    def rows(self) -> dict[str, list[str]]:
        """The checksums by id, one for each copy of the answer."""
        rows: dict[str, list[str]] = {}
        for _, id_, answer in list(self.seen):
            rows.setdefault(id_, []).append(answer)
        return rows

    def first_of(self, ids: set[str]) -> float | None:
        """When the first answer to one of ``ids`` arrived; None without such an answer."""
        return next((at for at, id_, _ in list(self.seen) if id_ in ids), None)

    def _run(self) -> None:
        for record in follow(self.topic, self._stop):
            fields = msgspec.json.decode(record.value, type=dict[str, str])
            checksum = fields["answer"].partition(" ")[0]  # the rest of the answer is padding
            self.seen.append((time.monotonic(), fields["id"], checksum))

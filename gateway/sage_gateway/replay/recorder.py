"""Records requests into a file, from a thread of its own; the data plane only adds to a list.

The file is bounded: full, it becomes ``FILE.1`` (the one before is dropped) and a new one begins.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from sage_flink.flow.call_options import PRIORITIES
from sage_gateway.replay.trace import Head, Row
from sage_gateway.scheduling import Wishes

log = logging.getLogger("sage.gateway")

BYTES_MAX = 64 << 20
WAITING_MAX = 100_000
EVERY_S = 1.0


class Taken:
    """A request that is being recorded; ``end`` closes it."""

    __slots__ = ("_arrived_s", "_begun_s", "_let_go_s", "_model", "_recorder", "_tokens", "_wishes")

    def __init__(self, recorder: "Recorder", model: str, wishes: Wishes, tokens: int) -> None:
        self._recorder = recorder
        self._model = model
        self._wishes = wishes
        self._tokens = tokens
        self._arrived_s = time.time()
        self._begun_s = time.perf_counter()
        self._let_go_s = math.inf

    def let_go(self) -> None:
        """A replica has room for it."""
        self._let_go_s = time.perf_counter()

    def end(self, status: int, used: Mapping[str, int], first_s: float) -> None:
        """It is over; ``first_s``: when a stream's first bytes came, of perf_counter, else 0."""
        now_s = time.perf_counter()
        wishes, finite = self._wishes, math.isfinite(self._wishes.deadline_s)
        row = Row(
            arrived_s=self._arrived_s,
            model=self._model,
            tokens=self._tokens,
            tenant=wishes.tenant,
            priority=PRIORITIES[wishes.priority],
            deadline_s=wishes.deadline_s - self._arrived_s if finite else None,
            waited_s=min(self._let_go_s, now_s) - self._begun_s,
            service_s=now_s - self._let_go_s if status == 200 else None,
            ttft_s=first_s - self._begun_s if first_s else None,
            used=sum(used.values()) if "in" in used else None,
            status=status,
        )
        self._recorder.add(row)


class Recorder:
    """Writes a trace to ``path``: ``sample`` of all requests, evenly."""

    def __init__(self, path: Path, head: Head, *, bytes_max: int = BYTES_MAX) -> None:
        self._path = path
        self._head = head
        self._bytes_max = bytes_max
        self._share = 0.0
        self._rows: deque[Row] = deque(maxlen=WAITING_MAX)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)

    def take(self, model: str, wishes: Wishes, tokens: int) -> Taken | None:
        """A request to be recorded; None of one that is not in the sample."""
        self._share += self._head.sample
        if self._share < 1.0:
            return None
        self._share -= 1.0
        return Taken(self, model, wishes, tokens)

    def add(self, row: Row) -> None:
        """Have it written soon."""
        self._rows.append(row)

    def open(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits."""
        self._stop.set()
        self._thread.join()

    # From here on: the thread.

    def _run(self) -> None:
        try:
            while not self._stop.wait(EVERY_S):
                self._write()
            self._write()
        except OSError as error:
            log.warning("no more is recorded: %s", error)

    def _write(self) -> None:
        if not self._rows:
            return
        if self._path.exists() and self._path.stat().st_size >= self._bytes_max:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            self._path.chmod(0o600)
            if not file.tell():
                _line(file, self._head)
            for _ in range(len(self._rows)):
                _line(file, self._rows.popleft())


def _line(file: BinaryIO, one: msgspec.Struct) -> None:
    file.write(msgspec.json.encode(one) + b"\n")

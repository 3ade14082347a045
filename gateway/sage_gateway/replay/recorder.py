"""The trace recorder: writes requests to a file from its own thread; the data plane only appends.

The file is bounded: a full file is renamed to ``FILE.1``, replacing the previous one.
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
from sage_gateway.replay.trace import TraceHeader, TraceRow
from sage_gateway.scheduling import RequestHints

log = logging.getLogger("sage.gateway")

BYTES_MAX = 64 << 20
WAITING_MAX = 100_000
EVERY_S = 1.0


class RequestRecording:
    """The recording of one request; ``finish`` adds it to the trace."""

    __slots__ = (
        "_arrived_s",
        "_dispatched_s",
        "_hints",
        "_model",
        "_recorder",
        "_started_s",
        "_tokens",
    )

    def __init__(self, recorder: "Recorder", model: str, hints: RequestHints, tokens: int) -> None:
        self._recorder = recorder
        self._model = model
        self._hints = hints
        self._tokens = tokens
        self._arrived_s = time.time()
        self._started_s = time.perf_counter()
        self._dispatched_s = math.inf

    def mark_dispatched(self) -> None:
        """Note that the request was dispatched to a replica."""
        self._dispatched_s = time.perf_counter()

    def finish(self, status: int, used: Mapping[str, int], first_s: float) -> None:
        """Record the end; ``first_s``: the perf_counter of a stream's first bytes, else 0."""
        now_s = time.perf_counter()
        hints = self._hints
        row = TraceRow(
            arrived_s=self._arrived_s,
            model=self._model,
            tokens=self._tokens,
            tenant=hints.tenant,
            priority=PRIORITIES[hints.priority],
            deadline_s=_since(hints.deadline_s, self._arrived_s),
            soft_deadline_s=_since(hints.soft_deadline_s, self._arrived_s),
            waited_s=min(self._dispatched_s, now_s) - self._started_s,
            service_s=now_s - self._dispatched_s if status == 200 else None,
            ttft_s=first_s - self._started_s if first_s else None,
            used=sum(used.values()) if "in" in used else None,
            status=status,
        )
        self._recorder.add(row)


def _since(deadline_s: float, arrived_s: float) -> float | None:
    return deadline_s - arrived_s if math.isfinite(deadline_s) else None


class Recorder:
    """Writes a trace to ``path``: the share ``sample`` of all requests, evenly spread."""

    def __init__(self, path: Path, header: TraceHeader, *, bytes_max: int = BYTES_MAX) -> None:
        self._path = path
        self._header = header
        self._bytes_max = bytes_max
        self._share = 0.0
        self._rows: deque[TraceRow] = deque(maxlen=WAITING_MAX)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)

    def start(self, model: str, hints: RequestHints, tokens: int) -> RequestRecording | None:
        """Start to record a request; None if it is not in the sample."""
        self._share += self._header.sample
        if self._share < 1.0:
            return None
        self._share -= 1.0
        return RequestRecording(self, model, hints, tokens)

    def add(self, row: TraceRow) -> None:
        """Write the row within ``EVERY_S``."""
        self._rows.append(row)

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Write the pending rows and stop."""
        self._stop.set()
        self._thread.join()

    # The methods below run on the thread.

    def _run(self) -> None:
        try:
            while not self._stop.wait(EVERY_S):
                self._write()
            self._write()
        except OSError as error:
            log.warning("recording has stopped: %s", error)

    def _write(self) -> None:
        if not self._rows:
            return
        if self._path.exists() and self._path.stat().st_size >= self._bytes_max:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            self._path.chmod(0o600)
            if not file.tell():
                _write_line(file, self._header)
            for _ in range(len(self._rows)):
                _write_line(file, self._rows.popleft())


def _write_line(file: BinaryIO, one: msgspec.Struct) -> None:
    file.write(msgspec.json.encode(one) + b"\n")

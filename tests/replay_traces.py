"""Traces for replays: their rows, their headers, and a recorder that writes them."""

from pathlib import Path
from typing import Any

from sage_gateway.config.pool_spec import PoolSpec
from sage_gateway.replay import Recorder, Trace, TraceHeader, TraceRow, read
from sage_gateway.replay.trace import header_of
from sage_gateway.scheduling import RequestHints

SPEC = PoolSpec.model_validate({"models": {"talk": {"engine": "fake", "kind": "chat"}}})
HEAD = header_of(SPEC)


def row(at_s: float, service_s: float | None = 1.0, **more: Any) -> TraceRow:
    return TraceRow(arrived_s=1e9 + at_s, model="talk", tokens=10, service_s=service_s, **more)


def record_trace(
    path: Path, rows: list[tuple[RequestHints, int]], header: TraceHeader = HEAD, **more: Any
) -> Trace:
    recorder = Recorder(path, header, **more)
    recorder.open()
    for hints, status in rows:
        recording = recorder.start("talk", hints, 10)
        if recording is not None:
            if status == 200:
                recording.mark_dispatched()
            recording.finish(status, {"in": 3, "out": 2} if status == 200 else {}, 0.0)
    recorder.close()
    return read(path)


def scaling_header(**scaling: Any) -> TraceHeader:
    model = {"engine": "fake", "kind": "chat", "concurrency": 1, "queue_timeout_s": 600}
    wanted = {"max": 6, "down_cooldown_s": 30, **scaling}
    spec = PoolSpec.model_validate({"models": {"talk": model | {"scaling": wanted}}})
    return header_of(spec)

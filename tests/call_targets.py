"""The targets of a Call node, and one run of a pipeline on each against a real HTTP engine."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from minicluster import FileSink, wait_for_workers

import sage_flink as sage
from benchmark_sage.mock_engine import MockEngine
from sage_connectors import HttpPool
from sage_flink.common import Record, Settings
from sage_flink.common.dead_letters import DeadLetter, from_message, to_message
from sage_flink.flow import FlinkOptions, Graph, Outcome
from sage_flink.flow.lists import ListSource

JOB = "conformance-call"
KEY = "the-key"
#: A run on Flink ends when every record is in a sink, or after this time; then tests fail.
LIMIT_S = 180.0


@dataclass(frozen=True)
class Branch:
    """A source, one call and a sink; ``name`` is the call's and its model's."""

    name: str
    spec: Any
    records: tuple[Record, ...]
    call: dict[str, Any]


@dataclass(frozen=True)
class AnswerSink(FileSink):
    """The records behind a call, deletes among them."""

    supports_deletes: ClassVar[bool] = True


@dataclass(frozen=True)
class RunResult:
    """Records and dead letters of a run, and the requests that the engine received."""

    answered: dict[str, list[Record]]  # by branch, in order of arrival
    failed: dict[str, list[DeadLetter]]  # by record id
    requests: list[dict[str, Any]]
    key: str  # of the pool, as configured in the target's process

    def of(self, branch: str) -> list[dict[str, Any]]:
        """The engine's requests of one branch, in order; ``parsed`` is the JSON body."""
        requests = [{**request, "parsed": _object(request["body"])} for request in self.requests]
        return [request for request in requests if request["parsed"].get("model") == branch]

    def record(self, record_id: str) -> Record:
        """The one answered record of this id."""
        (found,) = (r for records in self.answered.values() for r in records if r.id == record_id)
        return found


def on_local(branches: list[Branch], url: str, folder: Path) -> None:
    """In this process."""

    async def run() -> Outcome:
        async with HttpPool(url, KEY) as pool:
            return await sage.flow.run(_graph(branches, folder), job=JOB, pool=pool)

    outcome = asyncio.run(run())
    dead_letters = [to_message(failed, JOB) for failed in outcome.failed]
    _dead_letters(folder).write(dead_letters)


def on_native(branches: list[Branch], url: str, folder: Path) -> None:
    """The Java operator on a MiniCluster."""
    on_flink(branches, url, folder, FlinkOptions(**MINI))


MINI: dict[str, Any] = {"target": "local", "checkpoint_interval_s": 1.0, "restarts_max": 0}


def on_flink(
    branches: list[Branch],
    url: str,
    folder: Path,
    options: FlinkOptions,
    settings: Settings | None = None,
) -> None:
    """A job on a MiniCluster, to its end or for LIMIT_S."""
    settings = (settings or Settings.load()).model_copy(update={"gateway_url": url})
    sage.flow.submit(_graph(branches, folder), name=JOB, options=options, settings=settings)
    read = sum(len(branch.records) for branch in branches)
    deadline = time.monotonic() + LIMIT_S
    while _count_output(branches, folder) < read and time.monotonic() < deadline:
        time.sleep(0.2)
    wait_for_workers()


Target = Callable[[list[Branch], str, Path], None]
TARGETS: dict[str, Target] = {"local": on_local, "native": on_native}


def run_target(
    target: Target, branches: list[Branch], engine: MockEngine, folder: Path, url: str = ""
) -> RunResult:
    """Run the branches on ``target`` against the engine, or against ``url``, which leads to it."""
    target(branches, url or engine.url, folder)
    failed: dict[str, list[DeadLetter]] = {}
    for message in _dead_letters(folder).read_records():
        failed.setdefault(message.id, []).append(from_message(message))
    answered = {branch.name: _out(folder, branch).read_records() for branch in branches}
    key = _key_of_the_jvm() if target is on_native else KEY
    return RunResult(answered, failed, engine.requests(), key)


def _key_of_the_jvm() -> str:
    """The key that the native call reads: the JVM may have started before this module set KEY."""
    from pyflink.java_gateway import get_gateway

    return str(get_gateway().jvm.System.getenv("SAGE_GATEWAY_KEY") or "")


def _object(body: str) -> dict[str, Any]:
    try:
        return dict(json.loads(body))
    except ValueError:
        return {}


def _graph(branches: list[Branch], folder: Path) -> Graph:
    ends = [
        sage.flow.read(f"{branch.name}.in", ListSource(branch.records))
        .call(branch.name, branch.spec, **branch.call)
        .write(f"{branch.name}.out", _out(folder, branch))
        for branch in branches
    ]
    return sage.flow.pipeline(*ends, dead_letters=_dead_letters(folder))


def _count_output(branches: list[Branch], folder: Path) -> int:
    sinks = [_dead_letters(folder), *(_out(folder, branch) for branch in branches)]
    return sum(sink.count() for sink in sinks)


def _out(folder: Path, branch: Branch) -> AnswerSink:
    return AnswerSink(str(folder / f"{branch.name}.out"))


def _dead_letters(folder: Path) -> FileSink:
    return FileSink(str(folder / "dead-letters"))

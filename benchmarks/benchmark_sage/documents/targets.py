"""A folder read in process and on a MiniCluster, and how the two compare."""

import asyncio
import fcntl
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sage_flink as sage
from sage_connectors import DecodeFile, files
from sage_flink.common import Record, decode, encode
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import BatchLimits, FlinkOptions, Graph, Refusal
from sage_flink.flow.lists import ListSink


@dataclass(frozen=True)
class Reading:
    """The results of one target: records by id, and the reasons of dead letters by id."""

    documents: dict[str, Record]
    failed: dict[str, str]


@dataclass(frozen=True)
class HexFile:
    """A sink that appends a line of hex to a file for each record, in whatever process."""

    path: str
    batch: BatchLimits = field(default_factory=BatchLimits)

    def writer(self) -> "HexFile":
        """This sink itself."""
        return self

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        """Append all records."""
        with Path(self.path).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.writelines(f"{encode(record).hex()}\n" for record in records)
        return ()

    def close(self) -> None:
        """Each write closes the file."""

    def records(self) -> list[Record]:
        """All records so far."""
        if not Path(self.path).exists():
            return []
        with Path(self.path).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return [decode(bytes.fromhex(line)) for line in file]


def in_process(folder: Path) -> Reading:
    """The folder read in this process."""
    outcome = asyncio.run(sage.flow.run(_graph(folder, ListSink())))
    documents = _by_id(outcome.written["out"])
    failed = {failed.id: failed.reason for failed in outcome.failed}
    if len(failed) < len(outcome.failed):
        raise ValueError("an id is in two dead letters")
    return Reading(documents, failed)


def on_minicluster(folder: Path, work: Path, *, count: int, wait_s: float = 120) -> Reading:
    """The folder read by a Flink job that may not restart, when ``count`` records are there."""
    out, dead = HexFile(str(work / "out")), HexFile(str(work / "dead"))
    graph = _graph(folder, out).dead_letters_to(dead)
    options = FlinkOptions(target="local", checkpoint_interval_s=0.5, restarts_max=0)
    sage.flow.submit(graph, name="documents", options=options)
    deadline = time.monotonic() + wait_s
    while len(out.records()) + len(dead.records()) < count and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(1)  # for a record too many
    letters = [from_message(message) for message in dead.records()]
    failed = {letter.id: letter.reason for letter in letters}
    if len(failed) < len(letters):
        raise ValueError("an id is in two dead letters")
    return Reading(_by_id(out.records()), failed)


def _graph(folder: Path, sink: ListSink | HexFile) -> Graph:
    read = sage.flow.read("files", files(folder))
    return read.flat_map("decode", DecodeFile()).write("out", sink)


def _by_id(records: Sequence[Record]) -> dict[str, Record]:
    twice = [id_ for id_, count in Counter(record.id for record in records).items() if count > 1]
    if twice:
        raise ValueError(f"documents with one id: {twice[:5]}")
    return {record.id: record for record in records}

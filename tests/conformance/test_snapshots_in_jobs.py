"""A job that writes a collection with snapshots: in process, and on a MiniCluster."""

import asyncio
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from minicluster import LOCAL, QUIET, DiscardSink
from snapshot_histories import chunk, rows_of
from waiting import wait_until

import sage_flink as sage
from sage_connectors import generator
from sage_connectors.generator import Generator
from sage_flink.common import ConfigError, PipelineError, Record
from sage_flink.common.errors import SageError
from sage_flink.db import Collection, collection, memory
from sage_flink.db.snapshot_reads import SnapshotReads
from sage_flink.db.snapshot_writer import SnapshotWriter
from sage_flink.flow import BatchLimits, Refusal
from sage_flink.flow.check import check

DIM, DOCUMENTS, CHUNKS, UPDATES = 8, 5, 3, 120


@dataclass(frozen=True)
class Split:
    """The chunks of an update and the delete behind them."""

    emits_deletes = True

    def __call__(self, record: Record) -> Iterable[Record]:
        number = record.value["n"]
        doc, version = f"d{number % DOCUMENTS}", str(number)
        for ordinal in range(CHUNKS):
            yield chunk(doc, version, ordinal, DIM).replace(timestamp_ms=record.timestamp_ms)
        end = f"{doc}/{version}/end"
        yield record.delete_of(doc, version=version, id=end)


@pytest.fixture
def spec() -> Iterator[Collection]:
    name = f"job_{uuid.uuid4().hex}"
    limits = BatchLimits(items_max=4, linger_s=0.01)
    yield collection(name, dim=DIM, store="memory", batch=limits, snapshots=True)
    memory.forget(name)


def updates(count: int, per_s: float = 100.0) -> Generator:
    return generator(count=count, per_s=per_s)


def newest(count: int) -> dict[str, str]:
    """The version of each chunk after so many updates."""
    versions = {f"d{n % DOCUMENTS}": str(n) for n in range(count)}
    return {f"{d}/{k}": version for d, version in versions.items() for k in range(CHUNKS)}


def versions(reads: SnapshotReads) -> dict[str, str]:
    return {id_: str(row["version"]) for id_, row in rows_of(reads).items()}


def graph(sink: Any, per_s: float = 1_000.0) -> sage.flow.Graph:
    stream = sage.flow.read("in", updates(UPDATES, per_s)).flat_map("split", Split())
    return stream.write("vectors", sink).dead_letters_to(DiscardSink())


def test_a_run_in_this_process_commits_at_its_end(spec: Collection) -> None:
    asyncio.run(sage.flow.run(graph(spec)))

    opened = spec.open()
    assert isinstance(opened, SnapshotReads)
    assert versions(opened) == newest(UPDATES)
    assert len(opened.history()) == 2  # of the start, and of the end


def test_a_run_that_fails_leaves_no_row_that_a_reader_sees(spec: Collection) -> None:
    asyncio.run(sage.flow.run(graph(spec)))
    sink = FailingCollection(spec, fails_at=1)
    with pytest.raises(SageError):
        asyncio.run(sage.flow.run(graph(sink)))

    opened = spec.open()
    assert isinstance(opened, SnapshotReads)
    assert versions(opened) == newest(UPDATES)
    asyncio.run(sage.flow.run(graph(spec)))
    assert versions(opened) == newest(UPDATES)


@dataclass(frozen=True)
class FailingCollection:
    """A collection whose writer fails once, when there are ``fails_at`` snapshots."""

    spec: Collection
    fails_at: int
    marker: str = ""
    batch: BatchLimits = field(default_factory=lambda: BatchLimits(items_max=4, linger_s=0.01))
    snapshots = True
    supports_deletes = True

    def writer(self) -> "FailingWriter":
        writer = self.spec.writer()
        assert isinstance(writer, SnapshotWriter)
        return FailingWriter(self, writer)


@dataclass
class FailingWriter:
    sink: FailingCollection
    writer: SnapshotWriter

    def __post_init__(self) -> None:
        self.restore, self.end_epoch = self.writer.restore, self.writer.end_epoch
        self.commit, self.close = self.writer.commit, self.writer.close

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        refused = self.writer.write(records)
        has_failed = self.sink.marker and Path(self.sink.marker).exists()
        if not has_failed and len(self.writer.rows.snapshots()) >= self.sink.fails_at:
            if self.sink.marker:
                Path(self.sink.marker).touch()
            raise ConfigError("the test: this writer fails once")
        return refused


@pytest.mark.flink
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("restored_environment", "no_worker_left")
class TestOnFlink:
    pytestmark = QUIET

    def test_readers_see_whole_documents_over_a_failure(
        self, spec: Collection, tmp_path: Path
    ) -> None:
        sink = FailingCollection(spec, fails_at=4, marker=str(tmp_path / "failed"))
        spec.prepare()
        opened = spec.open()
        assert isinstance(opened, SnapshotReads)
        seen: list[dict[str, str]] = []

        def is_done() -> bool:
            seen.append(versions(opened))
            return seen[-1] == newest(UPDATES)

        sage.flow.submit(graph(sink, per_s=12), name=spec.name, options=LOCAL)
        wait_until(is_done, 120, "the last version of every document")

        assert Path(sink.marker).exists()
        counts = [max((int(v) for v in found.values()), default=-1) + 1 for found in seen]
        assert counts == sorted(counts)
        assert all(found == newest(count) for found, count in zip(seen, counts, strict=True))
        assert len(set(counts)) > 4  # snapshots on the way, not only the last one


def test_one_subtask_of_one_step_writes_a_collection_with_snapshots(spec: Collection) -> None:
    made = graph(spec)

    with pytest.raises(PipelineError, match="step 'vectors': a collection with snapshots"):
        check(made, parallelism=2)
    with pytest.raises(PipelineError, match="written by one subtask, got parallelism 3"):
        check(made, of_steps={"vectors": 3})
    check(made)
    one, two = (sage.flow.read(name, updates(1)) for name in ("one", "two"))
    both = sage.flow.pipeline(one.write("first", spec), two.write("second", spec))
    with pytest.raises(PipelineError, match="step 'second': writes the collection of step 'first'"):
        check(both.dead_letters_to(DiscardSink()))

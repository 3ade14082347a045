"""Formats on both targets: the same records, the same dead letters, a table in step."""

import asyncio
import json
import struct
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from debezium_log import ChangeLog, change_log
from format_vectors import VECTORS, without_parser_words
from minicluster import QUIET, FileSink, restore_environment, wait_for_workers
from waiting import wait_until

import sage_flink as sage
from sage_connectors import Debezium, Fields, Json, kafka
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic, feed
from sage_flink.common import ConfigError, Record
from sage_flink.common.dead_letters import from_message
from sage_flink.db import Collection, collection
from sage_flink.db import memory as vectors_in_memory
from sage_flink.flow import BatchLimits, FlinkOptions, Graph, Refusal
from sage_flink.operators import DropDeletes
from sage_flink.testing import ListSource

ROWS = Debezium(Fields(text="@.body", title="@.title"))


@dataclass(frozen=True)
class DeleteFileSink(FileSink):
    """A FileSink that keeps deletes as it keeps upserts."""

    supports_deletes: ClassVar[bool] = True


def vectors(name: str) -> ListSource:
    format_, messages = VECTORS[name]
    return ListSource(tuple(v.message(name, n) for n, v in enumerate(messages)), format_)


def all_vectors(sink: FileSink) -> Graph:
    streams = [sage.flow.read(name, vectors(name)) for name in VECTORS]
    return sage.flow.union("all", *streams).write("out", sink)


def by_origin(records: Sequence[Record]) -> list[Any]:
    return sorted((r.origin, r.id, r.kind, r.timestamp_ms, r.key, repr(r.value)) for r in records)


@dataclass(frozen=True)
class ToVector:
    """The row with a vector made of its text."""

    def __call__(self, record: Record) -> dict[str, Any]:
        crc = zlib.crc32(record.value["text"].encode())
        return {**record.value, "vector": struct.pack("<2f", 1.0, crc / 2**32)}


@dataclass(frozen=True)
class FailsOnce:
    """A collection whose writer fails once, after ``rows_max`` rows; ``marker`` exists then."""

    supports_deletes: ClassVar[bool] = True

    inner: Collection
    marker: str
    rows_max: int
    batch: BatchLimits = field(default_factory=lambda: BatchLimits(items_max=100))

    @property
    def place(self) -> Any:
        return self.inner.place

    def writer(self) -> "FailingWriter":
        with Path(f"{self.marker}.writers").open("a") as file:
            file.write("opened\n")
        return FailingWriter(self.inner.writer(), Path(self.marker), self.rows_max)


class FailingWriter:
    def __init__(self, inner: Any, marker: Path, rows_max: int) -> None:
        self.inner, self.marker, self.rows_max, self.rows = inner, marker, rows_max, 0

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        self.rows += len(records)
        if self.rows > self.rows_max and not self.marker.exists():
            self.marker.touch()
            raise ConfigError("the drill: this subtask fails once")  # not an error of the batch
        refused: Sequence[Refusal] = self.inner.write(records)
        return refused

    def close(self) -> None:
        self.inner.close()


def index_of(log: ChangeLog, sink: Any, *, deletes: bool = True) -> Graph:
    rows = sage.flow.read("trees", ListSource(tuple(log.records()), ROWS))
    if not deletes:
        rows = rows.flat_map("upserts", DropDeletes())
    return rows.map("vector", ToVector()).write("index", sink)


def stale_and_missing(log: ChangeLog, index: Collection) -> tuple[int, int]:
    """Rows of the index that are not those of the table, and rows of the table not in it."""
    hits = index.open().search([1.0, 0.5], 16_384)
    held = {hit.fields["doc"]: (hit.fields["title"], hit.fields["text"]) for hit in hits}
    table = {id_: (row["title"], row["body"]) for id_, row in log.table.items()}
    assert len(hits) == len(held)
    stale = [id_ for id_, row in held.items() if table.get(id_) != row]
    return len(stale), len(table.keys() - held.keys())


def table_of(messages: Iterable[Record]) -> dict[str, Any]:
    """The rows of a compacted topic: the last value of each key, and none after a tombstone."""
    last = {json.loads(message.key or b"")["id"]: message.value for message in messages}
    return {str(id_): json.loads(value) for id_, value in last.items() if value is not None}


@pytest.fixture
def index() -> Iterator[Collection]:
    made = collection(f"t{uuid.uuid4().hex}", dim=2, store="memory")
    yield made
    vectors_in_memory.forget(made.name)


def test_the_log_has_the_shares_that_it_is_asked_for() -> None:
    log = change_log()

    counts = log.counts
    assert sum(counts.values()) == 5_000
    assert counts["u"] == pytest.approx(1_500, abs=120)
    assert counts["d"] == pytest.approx(500, abs=80)
    assert counts["r"] == 500
    assert len(log.messages) > 5_500  # tombstones, and messages that are about no row


def test_in_process_an_index_equals_the_table_also_when_a_part_is_read_again(
    index: Collection,
) -> None:
    log = change_log(800)
    half = ChangeLog(log.messages[:500], log.table)

    asyncio.run(sage.flow.run(index_of(half, index)))
    outcome = asyncio.run(sage.flow.run(index_of(log, index)))

    assert outcome.failed == []
    assert stale_and_missing(log, index) == (0, 0)


def test_in_process_an_index_without_deletes_has_stale_rows(index: Collection) -> None:
    log = change_log(800)

    asyncio.run(sage.flow.run(index_of(log, index, deletes=False)))

    stale, missing = stale_and_missing(log, index)
    assert stale > 20
    assert missing == 0


@pytest.fixture
def cluster() -> Iterator[None]:
    yield from restore_environment()
    wait_for_workers()


@pytest.mark.flink
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("cluster")
class TestOnFlink:
    pytestmark = QUIET
    options = FlinkOptions(target="local", checkpoint_interval_s=0.3)

    def test_each_vector_is_what_it_is_in_process(self, tmp_path: Path) -> None:
        here = DeleteFileSink(str(tmp_path / "here"))
        there, failed = DeleteFileSink(str(tmp_path / "there")), FileSink(str(tmp_path / "failed"))
        outcome = asyncio.run(sage.flow.run(all_vectors(here)))
        expected = here.read_records()

        graph = all_vectors(there).dead_letters_to(failed)
        sage.flow.submit(graph, name="formats", options=self.options)
        wait_until(
            lambda: there.count() >= len(expected) and failed.count() >= len(outcome.failed),
            200,
            "all vectors",
        )

        assert len(expected) > 50
        assert len(outcome.failed) > 50
        assert by_origin(there.read_records()) == by_origin(expected)
        letters = [from_message(letter.replace(id="d/0/0")) for letter in failed.read_records()]
        words = without_parser_words
        assert sorted((x.id, x.step, words(x.reason), x.record()) for x in letters) == sorted(
            (f.record.id, f.step, words(f.reason), f.record) for f in outcome.failed
        )

    @pytest.mark.parametrize("deletes", [True, False])
    def test_after_a_crash_the_index_equals_the_table_unless_deletes_are_dropped(
        self, tmp_path: Path, index: Collection, deletes: bool
    ) -> None:
        log, marker = change_log(), tmp_path / "failed-once"
        sink = FailsOnce(index, str(marker), 2_000)
        failed = FileSink(str(tmp_path / "failed"))

        graph = index_of(log, sink, deletes=deletes).dead_letters_to(failed)
        sage.flow.submit(graph, name="debezium", options=self.options)
        wait_until(marker.exists, 120, "the crash")
        wait_until(
            lambda: stale_and_missing(log, index)[1] == 0 and self.is_settled(log, index),
            120,
            "the last change",
        )

        stale, missing = stale_and_missing(log, index)
        assert missing == 0
        assert failed.read_records() == []
        assert Path(f"{marker}.writers").read_text() == "opened\n" * 2  # one restart
        assert (stale == 0) is deletes

    @pytest.mark.service
    def test_a_topic_of_changes_becomes_a_compacted_topic_of_rows(self) -> None:
        log, number = change_log(300), uuid.uuid4().hex
        changes, rows, dead = (f"{kind}-{number}" for kind in ("changes", "rows", "dead"))
        for topic in (changes, rows, dead):
            ensure_topic(topic)
        feed(changes, [*log.messages, (b'{"id": 1}', b"not a change")])
        source = kafka(changes, bounded=True, format=Debezium())
        graph = sage.flow.read("trees", source).write("out", kafka(rows, format=Json()))

        sage.flow.submit(
            graph.dead_letters_to(kafka(dead)), name=f"changes-{number}", options=self.options
        )
        wait_until(lambda: len(list(drain(dead))) == 1, 120, "the dead letter")
        wait_until(lambda: table_of(drain(rows)) == log.table, 120, "the rows")

        (letter,) = map(from_message, drain(dead))
        assert (letter.step, letter.message.value) == ("trees", b"not a change")
        for topic in (changes, rows, dead):
            delete_topic(topic)

    def is_settled(self, log: ChangeLog, index: Collection) -> bool:
        before = stale_and_missing(log, index)
        time.sleep(3)
        return stale_and_missing(log, index) == before

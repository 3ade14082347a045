"""The contract of a collection with snapshots, on every store."""

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from snapshot_collections import (
    DIM,
    SNAPSHOT_STORES,
    drop_snapshot_collections,
    snapshot_collection,
)
from snapshot_histories import (
    ACTIONS,
    FIRST_MS,
    STEP_MS,
    WriteHistory,
    document,
    random_stream,
    rows_of,
)

from sage_flink.common import ConfigError, Record, Rejected
from sage_flink.common.errors import OperatorNeeded
from sage_flink.db import Collection, RowDelete, collection, field
from sage_flink.db.snapshot_reads import SnapshotReads
from sage_flink.db.vectors import pack

QUERY = [1.0, 0.0, *[0.5] * (DIM - 2)]


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    yield
    drop_snapshot_collections()


@pytest.fixture(params=SNAPSHOT_STORES)
def spec(request: pytest.FixtureRequest) -> Iterator[Collection]:
    with snapshot_collection(request) as made:
        yield made


def started(spec: Collection, *documents: list[Record]) -> WriteHistory:
    history = WriteHistory(spec, [record for records in documents for record in records])
    history.start()
    return history


def reads(spec: Collection) -> SnapshotReads:
    opened = spec.open()
    assert isinstance(opened, SnapshotReads)
    return opened


def versions(spec: Collection) -> list[str]:
    opened = reads(spec)
    found = sorted(str(row.fields["version"]) for row in opened.scan(vectors=False))
    searched = sorted(str(hit.fields["version"]) for hit in opened.search(QUERY, 50))
    opened.close()
    assert searched == found
    return found


def test_rows_are_visible_once_their_checkpoint_is_complete(spec: Collection) -> None:
    history = started(spec, document("a", "v1", 3, DIM))
    history.write(4)
    history.take_checkpoint(is_notified=False)
    opened = reads(spec)
    before = [len(opened.search(QUERY, 9)), opened.count(), len(opened.get(["a/0"]))]

    history.commit()
    time.sleep(0.1)  # a reader may use the snapshot before for as long

    assert before == [0, 0, 0]
    assert [hit.id for hit in opened.search(QUERY, 9)] == ["a/0", "a/1", "a/2"]
    assert opened.count() == 3
    [row] = opened.get(["a/1"])
    assert row.vector == pack([1.0, 1.0, *[0.5] * (DIM - 2)])
    assert row.fields == {"doc": "a", "version": "v1", "text": "a v1 1"}
    assert [row.id for row in opened.scan()] == ["a/0", "a/1", "a/2"]
    opened.close()


def test_a_document_keeps_its_old_version_until_the_new_one_is_whole(spec: Collection) -> None:
    history = started(spec, document("a", "v1", 3, DIM), document("a", "v2", 2, DIM))
    history.write(4)
    history.take_checkpoint()

    history.write(1)  # the first chunk of v2; the second one still waits for its embedding
    history.take_checkpoint()
    half = versions(spec)
    history.write(2)
    history.take_checkpoint(is_notified=False)
    not_yet = versions(spec)
    history.commit()

    assert half == not_yet == ["v1", "v1", "v1"]
    assert versions(spec) == ["v2", "v2"]


def test_a_restart_takes_back_what_no_checkpoint_has(spec: Collection) -> None:
    history = started(
        spec, document("a", "v1", 3, DIM), document("a", "v2", 2, DIM), document("b", "v1", 1, DIM)
    )
    history.write(4)
    history.take_checkpoint()
    stored = spec._connect(create=True)
    before = {row.id: row.fields for row in stored.scan(vectors=False)}
    history.write(5)
    history.take_checkpoint(is_complete=False)

    history.start()

    assert {row.id: row.fields for row in stored.scan(vectors=False)} == before
    assert versions(spec) == ["v1", "v1", "v1"]
    history.write(5)
    history.take_checkpoint()
    assert rows_of(reads(spec)) == history.expected()
    stored.close()


def test_a_fresh_job_takes_back_what_the_last_one_did_not_commit(spec: Collection) -> None:
    first = started(spec, document("a", "v1", 2, DIM), document("b", "v1", 2, DIM))
    first.write(3)
    first.take_checkpoint()
    first.write(1)
    first.take_checkpoint(is_notified=False)

    second = WriteHistory(spec, document("a", "v2", 1, DIM), base=first.base + 1_000_000)
    second.start()
    second.write(2)
    assert versions(spec) == ["v1", "v1"]
    second.take_checkpoint()

    assert versions(spec) == ["v2"]


def test_filters_ids_and_documents_are_those_of_the_records(spec: Collection) -> None:
    history = started(spec, *(document(doc, "v1", 3, DIM) for doc in "ab"))
    history.write(8)
    history.take_checkpoint()
    opened = reads(spec)

    assert [row.id for row in opened.get(["b/1", "no", "a/0"])] == ["b/1", "a/0"]
    assert (opened.count(["a/0", "a/1", "no"]), opened.count(where=field("doc") == "a")) == (2, 3)
    assert opened.count(["a/0", "b/0"], where=field("doc") == "b") == 1
    where = field("id").in_(["a/1", "b/2"]) & ~(field("doc") == "b")
    assert [hit.id for hit in opened.search(QUERY, 9, where=where)] == ["a/1"]
    assert [row.id for row in opened.scan(field("id") > "a/1")] == ["a/2", "b/0", "b/1", "b/2"]
    best = opened.search(QUERY, 9, group_by="document")
    assert sorted(hit.id for hit in best) == ["a/0", "b/0"]
    assert [len(hits) for hits in opened.search_batch([QUERY, QUERY], 4)] == [4, 4]
    opened.close()


def test_as_of_reads_the_rows_of_a_time(spec: Collection) -> None:
    history = started(spec, *(document("a", f"v{n}", n, DIM) for n in (1, 2, 3)))
    for count in (2, 3, 4):
        history.write(count)
        history.take_checkpoint()

    for number in (1, 2, 3):
        time_ms = FIRST_MS + STEP_MS * number
        for at in (time_ms, time_ms + STEP_MS - 1, datetime.fromtimestamp(time_ms / 1000, UTC)):
            opened = spec.open(as_of=at)
            found = [row.fields["version"] for row in opened.scan(vectors=False)]
            opened.close()
            assert set(found) == {f"v{number}"}
            assert len(found) == number
    with pytest.raises(Rejected, match="before the oldest snapshot that is kept"):
        spec.open(as_of=FIRST_MS)
    with pytest.raises(Rejected, match="time zone"):
        spec.open(as_of=datetime(2026, 1, 1))


def test_vacuum_removes_the_versions_that_are_not_kept(spec: Collection) -> None:
    history = started(spec, *(document("a", f"v{n}", 2, DIM) for n in range(4)))
    for _ in range(4):
        history.write(3)
        history.take_checkpoint()
    assert history.writer is not None
    rows = history.writer.rows
    stored = spec._connect(create=True)
    assert (rows.vacuum(), stored.count(where=field("doc") == "a")) == (0, 8)

    rows.clock = lambda: time.time() + rows.keep_s + 1

    assert (rows.vacuum(), rows.vacuum()) == (6, 0)
    assert stored.count(where=field("doc") == "a") == 2
    assert len(rows.snapshots()) == 1
    assert versions(spec) == ["v3", "v3"]
    with pytest.raises(ConfigError, match="older than the versions that the collection keeps"):
        rows.restore(history.base + 1, is_fresh=False, ends_documents=True)
    stored.close()


def test_only_a_pipeline_writes_and_any_reader_sees_the_snapshot(spec: Collection) -> None:
    history = started(spec, document("a", "v1", 2, DIM))
    history.write(3)
    history.take_checkpoint()
    plain = collection(spec.name, dim=DIM, store=spec.store, url=spec.url)

    opened = plain.open(create=False)
    assert [row.id for row in opened.scan()] == ["a/0", "a/1"]
    for write in (
        lambda: opened.upsert([]),
        lambda: opened.delete([RowDelete("a")]),
        lambda: opened.delete_where(field("doc") == "a"),
    ):
        with pytest.raises(ConfigError, match="written by a pipeline alone"):
            write()
    opened.close()
    with pytest.raises(ConfigError, match="snapshots=True"):
        plain.writer()


def test_a_row_that_does_not_fit_is_refused_alone(spec: Collection) -> None:
    good, *_ = document("a", "v1", 1, DIM)
    value = dict(good.value)
    bad = [
        Record("", value),
        Record("i" * 500, value),
        Record("own", {**value, "snapshot_from": 7}),
        Record("doc", {**value, "doc": 7}),
    ]
    history = started(spec)
    assert history.writer is not None

    refused = history.writer.write([bad[0], good, *bad[1:]])

    assert sorted(one.record.id for one in refused) == sorted(record.id for record in bad)


def test_a_second_writer_is_noticed(spec: Collection) -> None:
    one, two = started(spec), WriteHistory(spec, [], base=5_000_000)
    two.start()
    two.take_checkpoint()

    one.checkpoint = 1
    with pytest.raises(OperatorNeeded, match="another writer"):
        one.take_checkpoint()


@pytest.mark.parametrize("seed", range(3))
def test_a_random_history_equals_the_replayed_truth(spec: Collection, seed: int) -> None:
    chance = random.Random(seed)
    history = started(spec, random_stream(chance, 30, DIM))
    for _ in range(40):
        history.act(chance, ACTIONS)
    history.take_checkpoint()

    opened = reads(spec)
    assert rows_of(opened) == history.expected()
    for checkpoint in chance.sample(history.commits, min(8, len(history.commits))):
        past = opened.as_of(FIRST_MS + STEP_MS * checkpoint)
        assert rows_of(past) == history.expected(checkpoint), checkpoint
    opened.close()


def test_a_collection_without_snapshots_has_no_past_and_takes_no_snapshots() -> None:
    plain = collection("plain_of_snapshots", dim=DIM, store="memory")
    plain.open().close()

    with pytest.raises(ConfigError, match="made without snapshots=True"):
        plain.open(as_of=FIRST_MS)
    with pytest.raises(ConfigError, match="made without snapshots=True"):
        plain.vacuum()
    with pytest.raises(ConfigError, match="made without snapshots=True"):
        collection("plain_of_snapshots", dim=DIM, store="memory", snapshots=True).open()

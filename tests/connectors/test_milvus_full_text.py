"""Full-text search of a real server: what its schema allows, and an alias that moves to it."""

import json
import uuid
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner
from waiting import wait_until

from sage_connectors import milvus_reads
from sage_connectors.milvus_server import MilvusServer
from sage_flink import cli
from sage_flink.common import ConfigError, NotFound, Record, Rejected
from sage_flink.common.connections import MilvusConnection
from sage_flink.db import Collection, VectorRow, collection, field
from sage_flink.db.vectors import pack

pytestmark = pytest.mark.processes
ALL = field("id").exists()
NORTH = pack([0.0, 1.0])
Make = Callable[..., Collection]


@pytest.fixture
def make(milvus_lite: str) -> Iterator[Make]:
    """Makes a collection; it is dropped after the test."""
    names: list[str] = []

    def make(*, full_text: bool) -> Collection:
        names.append(f"texts_{uuid.uuid4().hex}")
        made = collection(names[-1], dim=2, url=milvus_lite, full_text=full_text)
        made.prepare()
        return made

    yield make
    for name in names:
        collection(name, dim=2, url=milvus_lite).open().drop()  # type: ignore[attr-defined]


def test_rows_of_a_job_are_found_by_their_words(make: Make) -> None:
    spec = make(full_text=True)
    writer, store = spec.writer(), spec.open()
    rows = [Record(f"r{n}", {"vector": NORTH, "text": f"row {n} of foxes"}) for n in range(20)]

    assert writer.write(rows) == []
    wait_until(lambda: len(store.search_text("foxes", 50)) == 20, 10, "the rows")

    assert [hit.id for hit in store.search_text("7", 5)] == ["r7"]
    for opened in (writer, store):
        opened.close()


def test_the_names_of_the_columns_cannot_be_those_of_fields(make: Make) -> None:
    store = make(full_text=True).open()

    refused = store.upsert(
        [VectorRow(name, NORTH, {name: "x"}) for name in ("full_text", "full_text_bm25", "text")]
    )

    assert {row.id: row.reason for row in refused} == {
        name: f"field {name!r} is Milvus's own; rename it"
        for name in ("full_text", "full_text_bm25")
    }
    store.close()


def test_a_collection_without_full_text_is_refused_with_both_schemas(make: Make) -> None:
    plain = make(full_text=False)

    with pytest.raises(ConfigError, match=r"it has id VARCHAR, .*, got full_text=True, which has"):
        collection(plain.name, dim=2, url=plain.url, full_text=True).prepare()


def test_an_absent_collection_is_not_made_by_a_reader(milvus_lite: str) -> None:
    with pytest.raises(NotFound):
        collection("absent", dim=2, url=milvus_lite, full_text=True).open(create=False)


def test_an_open_reader_of_an_alias_sees_the_words_of_the_collection_that_it_moves_to(
    make: Make, milvus_lite: str
) -> None:
    plain, texts = make(full_text=False), make(full_text=True)
    for spec in (plain, texts):
        store = spec.open()
        store.upsert([VectorRow("a", NORTH, {"text": f"fox of {spec.name}", "doc": "d"})])
        store.close()
    alias = f"alias_{uuid.uuid4().hex}"
    with MilvusServer(MilvusConnection(url=milvus_lite)) as server:
        server.set_alias(alias, plain.name)
        reader = collection(alias, dim=2, url=milvus_lite).open(create=False)
        with pytest.raises(ConfigError, match="made without full_text=True"):
            reader.search_text("fox", 3)

        server.set_alias(alias, texts.name)
        wait_until(lambda: reader.search_text("fox", 3) != [], 10, "the row")

        expected = {"text": f"fox of {texts.name}", "doc": "d"}
        for hits in (
            reader.search([0.0, 1.0], 3),
            reader.search_text("fox", 3),
            reader.hybrid_search([0.0, 1.0], "fox", 3),
        ):
            assert [hit.fields for hit in hits] == [expected]
        reader.close()
        server.drop_alias(alias)


def test_the_command_line_searches_by_words(
    make: Make, milvus_lite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make(full_text=True)
    store = spec.open()
    store.upsert([VectorRow(word, NORTH, {"text": f"a {word}", "n": 1}) for word in ("fox", "owl")])
    wait_until(lambda: store.search_text("owl", 3) != [], 10, "the rows")
    store.close()
    monkeypatch.setenv("SAGE_MILVUS_URL", milvus_lite)

    done = CliRunner().invoke(cli.app, ["db", "search", spec.name, "--text", "the owl", "--json"])

    [hit] = json.loads(done.output)
    assert (hit["id"], hit["fields"]) == ("owl", {"text": "a owl", "n": 1})
    assert hit["score"] > 0


def test_what_milvus_lite_cannot_evaluate_or_order_is_an_error_and_no_rows_are_lost(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(full_text=True).open()
    store.upsert([VectorRow(f"r{9 - n}", NORTH, {"n": n}) for n in range(10)])

    with pytest.raises(Rejected, match="filter: Milvus cannot evaluate it"):
        store.count(where=field("n").in_([1, 2]))
    assert [row.id for row in store.scan(vectors=False)] == [f"r{n}" for n in range(10)]
    monkeypatch.setattr(milvus_reads, "IDS_MAX", 5)
    for read in (lambda: list(store.scan(vectors=False)), lambda: store.delete_where(ALL)):
        with pytest.raises(ConfigError, match="does not order rows by id, so at most 5"):
            read()
    assert store.count() == 10
    store.close()

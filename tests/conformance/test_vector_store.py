"""The contract of every vector store."""

import logging
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from redis_server import free_port

from sage_flink.common import ConfigError, Rejected
from sage_flink.db import Collection, RowDelete, VectorRow, VectorStore, collection
from sage_flink.db.vectors import pack

DIM = 8
EAST = [1.0, 0, 0, 0, 0, 0, 0, 0]
NORTH = [0, 1.0, 0, 0, 0, 0, 0, 0]
NORTH_EAST = [1.0, 1.0, 0, 0, 0, 0, 0, 0]


def row(id_: str, vector: list[float], **fields: object) -> VectorRow:
    return VectorRow(id_, pack(vector), fields)


def eventually(condition: Callable[[], bool], within_s: float = 10) -> bool:
    end = time.monotonic() + within_s
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return result


def test_the_nearest_rows_come_first_with_their_fields_and_cosine(store: VectorStore) -> None:
    store.upsert([row("e", EAST, text="east"), row("n", NORTH), row("ne", NORTH_EAST, ordinal=3)])

    assert eventually(lambda: len(store.search(EAST, 3)) == 3)
    hits = store.search([5.0, *EAST[1:]], 2)

    assert [hit.id for hit in hits] == ["e", "ne"]
    assert [hit.score for hit in hits] == pytest.approx([1, 0.5**0.5], abs=1e-5)
    assert [hit.fields for hit in hits] == [{"text": "east"}, {"ordinal": 3}]


def test_an_upsert_of_the_same_id_replaces_the_row(store: VectorStore) -> None:
    store.upsert([row("a", EAST, text="old")])
    store.upsert([row("a", NORTH, text="newer")])
    store.upsert([row("a", NORTH, text="new"), row("a", NORTH, text="newest")])

    assert store.count() == 1
    assert eventually(lambda: store.search(NORTH, 5)[0].fields == {"text": "newest"})


def test_a_prepared_collection_exists(new_vectors: Collection) -> None:
    new_vectors.prepare()
    new_vectors.prepare()

    store = new_vectors.open(create=False)
    assert store.count() == 0
    store.close()


def test_a_job_may_start_while_its_store_is_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        collection("away", dim=DIM, url=f"http://127.0.0.1:{free_port()}").prepare()

    assert "'away' is not created before the start" in caplog.text


def test_every_acknowledged_row_is_counted(store: VectorStore) -> None:
    refused = store.upsert([row(f"r{n}", [1.0, n, 0, 0, 0, 0, 0, 0]) for n in range(500)])

    assert (list(refused), store.count()) == ([], 500)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (VectorRow("x", pack(EAST)[:-4]), "8 float32"),
        (row("x", [float("nan"), *EAST[1:]]), "not finite"),
        (row("x", [float("inf"), *EAST[1:]]), "not finite"),
        (row("x", [0.0] * 8), "zeros"),
        (row("x", EAST, blob=b"bytes"), "JSON"),
        (row("x", EAST, price=float("nan")), "JSON has no such number"),
        (row("x", EAST, at=datetime(2026, 1, 1, tzinfo=UTC)), "not JSON but datetime"),
        (row("x", EAST, size=2**64), "more than 64 bits"),
        (row("x", EAST, doc=7), "'doc' must be text, got int"),
        (row("x", EAST, doc="d" * 5000), "'doc' must have at most 4096 bytes, got 5000"),
        (row("x", EAST, doc="\ud800"), "'doc' is not Unicode text"),
        (row("x", EAST, version=1.5), "'version' must be text, got float"),
    ],
    ids=[
        *("dim", "nan", "inf", "zeros", "bytes", "nan field", "time", "large"),
        *("doc", "long doc", "surrogate", "version"),
    ],
)
def test_a_bad_row_is_refused_alone(store: VectorStore, bad: VectorRow, reason: str) -> None:
    refused = store.upsert([row("before", EAST), bad, row("after", NORTH)])

    assert [refusal.id for refusal in refused] == ["x"]
    assert reason in refused[0].reason
    assert store.count() == 2


def test_an_empty_collection_has_no_hits_and_no_rows(store: VectorStore) -> None:
    assert (store.search(EAST, 3), store.count(), list(store.upsert([]))) == ([], 0, [])


@pytest.mark.parametrize(
    ("vector", "top_k"), [(EAST[1:], 3), ([0.0] * 8, 3), (EAST, 0), (EAST, 20_000)]
)
def test_an_invalid_search_is_rejected(store: VectorStore, vector: list[float], top_k: int) -> None:
    with pytest.raises(Rejected, match="search: "):
        store.search(vector, top_k)


def test_a_dim_other_than_the_collections_is_an_error_that_names_both(
    store: VectorStore, vectors: Collection
) -> None:
    with pytest.raises(ConfigError, match=r"dim 8.*dim 16"):
        collection(vectors.name, dim=16, store=vectors.store).open()


def test_a_search_right_after_a_write_returns_within_half_a_second(store: VectorStore) -> None:
    store.upsert([row("a", EAST)])

    start = time.monotonic()
    store.search(EAST, 1)

    assert time.monotonic() - start < 0.5


def test_several_writers_may_create_the_collection_concurrently(new_vectors: Collection) -> None:
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(lambda _: new_vectors.open(), range(4)))
    for number, store in enumerate(stores):
        store.upsert([row(f"r{number}", EAST)])

    assert stores[0].count() == 4


def test_a_collection_can_be_pickled(vectors: Collection) -> None:
    assert pickle.loads(pickle.dumps(vectors)) == vectors


def doc_rows(doc: str, version: str, *ordinals: int) -> list[VectorRow]:
    return [
        row(f"{doc}/{n}", [1.0, n, 0, 0, 0, 0, 0, 0], doc=doc, version=version) for n in ordinals
    ]


def stored_ids(store: VectorStore, *ids: str) -> set[str]:
    return {id_ for id_ in ids if store.count({id_})}


def test_a_delete_removes_only_the_other_versions_of_its_document(store: VectorStore) -> None:
    store.upsert(
        [
            *doc_rows("a", "v1", 0, 1, 2),
            *doc_rows("b", "v1", 0, 1),
            row("unlabelled", EAST),
        ]
    )
    store.upsert(doc_rows("a", "v2", 0))

    store.delete([RowDelete("a", "v2"), RowDelete("b", "v1"), RowDelete("no such", "v9")])

    assert store.count() == 4
    assert stored_ids(store, "a/0", "a/1", "a/2") == {"a/0"}
    assert eventually(
        lambda: {h.id for h in store.search(EAST, 9)} == {"a/0", "b/0", "b/1", "unlabelled"}
    )
    (found,) = (hit for hit in store.search(EAST, 9) if hit.id == "a/0")
    assert found.fields == {"doc": "a", "version": "v2"}


def test_a_delete_without_a_version_deletes_all_rows_of_its_document(store: VectorStore) -> None:
    store.upsert([*doc_rows("a", "v1", 0, 1), row("plain", EAST, doc="a"), *doc_rows("b", "v1", 0)])

    store.delete([RowDelete("a")])
    store.delete([RowDelete("a")])

    assert (store.count(), store.count({"b/0"})) == (1, 1)


def test_a_delete_with_a_version_removes_rows_without_one(store: VectorStore) -> None:
    store.upsert([row("plain", EAST, doc="a"), row("none", EAST), *doc_rows("a", "v1", 1)])

    store.delete([RowDelete("a", "v1")])

    assert stored_ids(store, "plain", "none", "a/1") == {"none", "a/1"}


def test_a_row_stays_only_if_every_delete_of_its_document_keeps_it(store: VectorStore) -> None:
    store.upsert([*doc_rows("a", "v1", 0), *doc_rows("b", "v1", 0)])

    store.delete(
        [RowDelete("a", "v1"), RowDelete("a", "v2"), RowDelete("b", "v1"), RowDelete("b", "v1")]
    )

    assert stored_ids(store, "a/0", "b/0") == {"b/0"}


def test_a_delete_removes_rows_acknowledged_just_before_it(store: VectorStore) -> None:
    for number in range(10):
        store.upsert(doc_rows("a", f"v{number}", *range(number * 5, number * 5 + 5)))
        store.delete([RowDelete("a", f"v{number}")])

        assert store.count() == 5


def test_a_row_written_after_a_delete_stays(store: VectorStore) -> None:
    for number in range(5):
        store.upsert(doc_rows("a", "v", 0, 1))
        store.delete([RowDelete("a")])
        store.upsert(doc_rows("a", "v", 1))

        assert (number, store.count()) == (number, 1)


def test_many_documents_are_deleted_in_one_call(store: VectorStore) -> None:
    store.upsert([row for n in range(500) for row in doc_rows(f"d{n}", "v1", 0, 1)])

    store.delete([RowDelete(f"d{n}", "v1" if n % 2 else "v2") for n in range(500)])

    assert store.count() == 500


INJECTIONS = [
    '"',
    "'",
    "\\",
    '\\"',
    'a" or id != "',
    'a" or "a" == "a',
    '"] or id in ["v/0',
    "a' or '1'=='1",
    'a") || (1==1) || ("',
    "a%",
    "_",
    "*",
    "a\nb",
    "a\tb\r",
    "\x07\x08\x0c\x1b\x7f",
    "\x00",
    "/* a */ // b",
    '{a} $meta["doc"]',
    "$meta",
    "\\u0061",
    "\\x61",
    "\\141",
    "ä/ß/漢字/🦉",
    "e\u0301",
    "\u202e\u2028\ufeff",
    " a ",
    "null",
    "0",
    "true",
    "",
    "\ud800",
    "a" * 5000,
]


def test_a_document_name_is_never_parsed_as_an_expression(store: VectorStore) -> None:
    names = [*INJECTIONS, "a", "A", "victim"]
    rows = [row(f"r{n}", EAST, doc=name, version="v") for n, name in enumerate(names)]
    refused = {refusal.id for refusal in store.upsert([*rows, row("unlabelled", EAST)])}
    kept = {row.id for row in rows} - refused
    assert len(refused) == 2
    for number, name in enumerate(names):
        store.delete([RowDelete(name, "v")])
        assert store.count() == len(kept) + 1, name
        store.delete([RowDelete(name, 'x" or version != "y')])
        # A row with an empty document name belongs to no document, so no delete removes it.
        kept -= {f"r{number}"} if name else set()
        assert store.count() == len(kept) + 1, name

    assert stored_ids(store, *kept, "unlabelled") == {*kept, "unlabelled"}

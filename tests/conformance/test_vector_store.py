"""What every vector store promises."""

import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sage_flink.common import ConfigError, Rejected
from sage_flink.db import Collection, Row, VectorStore, collection
from sage_flink.db.vectors import packed

EAST = [1.0, 0, 0, 0, 0, 0, 0, 0]
NORTH = [0, 1.0, 0, 0, 0, 0, 0, 0]
NORTH_EAST = [1.0, 1.0, 0, 0, 0, 0, 0, 0]


def row(id_: str, vector: list[float], **fields: object) -> Row:
    return Row(id_, packed(vector), fields)


def eventually(holds: Callable[[], bool], within_s: float = 10) -> bool:
    end = time.monotonic() + within_s
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.01)
    return held


def test_the_nearest_rows_come_first_with_their_fields_and_cosine(store: VectorStore) -> None:
    store.upsert([row("e", EAST, text="east"), row("n", NORTH), row("ne", NORTH_EAST, ordinal=3)])

    assert eventually(lambda: len(store.search(EAST, 3)) == 3)
    hits = store.search([5.0, *EAST[1:]], 2)

    assert [hit.id for hit in hits] == ["e", "ne"]
    assert [hit.score for hit in hits] == pytest.approx([1, 0.5**0.5], abs=1e-5)
    assert [hit.fields for hit in hits] == [{"text": "east"}, {"ordinal": 3}]


def test_a_row_written_again_stands_once_and_the_newest_counts(store: VectorStore) -> None:
    store.upsert([row("a", EAST, text="old")])
    store.upsert([row("a", NORTH, text="newer")])
    store.upsert([row("a", NORTH, text="new"), row("a", NORTH, text="newest")])

    assert store.count() == 1
    assert eventually(lambda: store.search(NORTH, 5)[0].fields == {"text": "newest"})


def test_every_acknowledged_row_is_counted(store: VectorStore) -> None:
    refused = store.upsert([row(f"r{n}", [1.0, n, 0, 0, 0, 0, 0, 0]) for n in range(500)])

    assert (list(refused), store.count()) == ([], 500)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Row("x", packed(EAST)[:-4]), "8 float32"),
        (row("x", [float("nan"), *EAST[1:]]), "not finite"),
        (row("x", [float("inf"), *EAST[1:]]), "not finite"),
        (row("x", [0.0] * 8), "zeros"),
        (row("x", EAST, blob=b"bytes"), "JSON"),
    ],
    ids=["dim", "nan", "inf", "zeros", "bytes"],
)
def test_a_bad_row_is_refused_alone(store: VectorStore, bad: Row, reason: str) -> None:
    refused = store.upsert([row("before", EAST), bad, row("after", NORTH)])

    assert [refusal.id for refusal in refused] == ["x"]
    assert reason in refused[0].reason
    assert store.count() == 2


def test_an_empty_collection_finds_and_counts_nothing(store: VectorStore) -> None:
    assert (store.search(EAST, 3), store.count(), list(store.upsert([]))) == ([], 0, [])


@pytest.mark.parametrize(
    ("vector", "top_k"), [(EAST[1:], 3), ([0.0] * 8, 3), (EAST, 0), (EAST, 20_000)]
)
def test_a_question_that_makes_no_sense_is_rejected(
    store: VectorStore, vector: list[float], top_k: int
) -> None:
    with pytest.raises(Rejected, match="search: "):
        store.search(vector, top_k)


def test_another_dim_is_a_setting_to_fix_and_both_are_named(
    store: VectorStore, vectors: Collection
) -> None:
    with pytest.raises(ConfigError, match=r"dim 8.*dim 16"):
        collection(vectors.name, dim=16, store=vectors.store).open()


def test_a_search_soon_after_a_write_answers_at_once(store: VectorStore) -> None:
    store.upsert([row("a", EAST)])

    begun = time.monotonic()
    store.search(EAST, 1)

    assert time.monotonic() - begun < 0.5


def test_two_writers_may_make_the_collection_at_once(vectors: Collection) -> None:
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(lambda _: vectors.open(), range(4)))
    for number, store in enumerate(stores):
        store.upsert([row(f"r{number}", EAST)])

    assert stores[0].count() == 4


def test_a_collection_travels_as_a_value(vectors: Collection) -> None:
    assert pickle.loads(pickle.dumps(vectors)) == vectors

"""Pages of searches and the best row of each document: the same in every store."""

import math
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from text_collections import TEXT_STORES, text_collection
from text_rows import EAST, row
from waiting import wait_until

from sage_flink.common import Rejected
from sage_flink.db import SearchHit, VectorRow, VectorStore, collection, field, memory

DIM = 8
STORES = [
    pytest.param("memory", id="memory"),
    pytest.param("milvus", id="milvus", marks=pytest.mark.service),
    pytest.param("lite", id="milvus-lite", marks=pytest.mark.processes),
]
#: So many chunks of one document are nearer than all others.
LONG = 100


def rows_of_documents() -> list[VectorRow]:
    """One long document, three short ones, and two rows without a document; the best first."""
    fields: list[dict[str, Any]] = [{"doc": "long", "n": n} for n in range(LONG)]
    fields += [{"doc": doc, "n": n} for n in range(2) for doc in ("a", "b", "c")]
    fields += [{"n": 0}, {"n": 1, "doc": ""}]
    # The longer the text, the less a word in it counts: the order by words is that by vectors.
    return [
        row(f"r{n:03}", n * 0.01, text="fox" + " hen" * n, **about)
        for n, about in enumerate(fields)
    ]


#: The best rows of the documents, and the rows without one.
BEST = ["r000", "r100", "r101", "r102", "r106", "r107"]


def filled(store: VectorStore) -> VectorStore:
    rows = rows_of_documents()
    assert not store.upsert(rows)
    wait_until(lambda: len(store.search(EAST, 200)) == len(rows), 10, "the rows")
    return store


@pytest.fixture(params=STORES, scope="module")
def vectors(request: pytest.FixtureRequest) -> Iterator[VectorStore]:
    """A store with the rows; only read."""
    name, in_memory = f"conformance_{uuid.uuid4().hex}", request.param == "memory"
    url = request.getfixturevalue("milvus_lite") if request.param == "lite" else ""
    store = collection(name, dim=DIM, store="memory" if in_memory else "milvus", url=url).open()
    yield filled(store)
    if in_memory:
        memory.forget(name)
    else:
        store.drop()  # type: ignore[attr-defined]
    store.close()


@pytest.fixture(params=TEXT_STORES, scope="module")
def texts(request: pytest.FixtureRequest) -> Iterator[VectorStore]:
    """A store with the rows and full-text search; only read."""
    with text_collection(request) as spec:
        store = spec.open()
        yield filled(store)
        store.close()


def ids(hits: list[SearchHit]) -> list[str]:
    return [hit.id for hit in hits]


def test_pages_follow_each_other(vectors: VectorStore) -> None:
    whole = vectors.search(EAST, 9)

    assert ids(whole) == [f"r{n:03}" for n in range(9)]
    assert vectors.search(EAST, 3) + vectors.search(EAST, 6, offset=3) == whole
    assert ids(vectors.search(EAST, 5, offset=105)) == ["r105", "r106", "r107"]
    assert vectors.search(EAST, 5, offset=108) == []


def test_the_best_row_of_each_document_is_found_behind_many_others(vectors: VectorStore) -> None:
    hits = vectors.search(EAST, 50, group_by="document")

    assert ids(hits) == BEST
    assert hits[1].score == pytest.approx(math.cos(1.0), abs=1e-5)
    assert hits[1].fields == {"doc": "a", "n": 0, "text": "fox" + " hen" * LONG}
    assert "doc" not in hits[4].fields


def test_pages_count_documents(vectors: VectorStore) -> None:
    pages = [vectors.search(EAST, 2, offset=n, group_by="document") for n in (0, 2, 4, 6)]

    assert [ids(page) for page in pages] == [BEST[:2], BEST[2:4], BEST[4:], []]


def test_filters_and_the_least_score_apply_to_rows(vectors: VectorStore) -> None:
    def search(**more: Any) -> list[str]:
        return ids(vectors.search(EAST, 9, group_by="document", **more))

    assert search(where=field("n") == 1) == ["r001", "r103", "r104", "r105", "r107"]
    assert search(min_score=math.cos(1.015)) == ["r000", "r100", "r101"]
    assert search(where=field("doc") == "none") == []


Page = Callable[..., list[SearchHit]]


def by_words(store: VectorStore) -> Page:
    return lambda top_k, **page: store.search_text("fox", top_k, **page)


def by_both(store: VectorStore) -> Page:
    return lambda top_k, **page: store.hybrid_search(EAST, "fox", top_k, **page)


@pytest.mark.parametrize("search_by", [by_words, by_both])
def test_searches_by_words_have_pages_too(
    texts: VectorStore, search_by: Callable[[VectorStore], Page]
) -> None:
    search = search_by(texts)

    assert ids(search(9)) == [f"r{n:03}" for n in range(9)]
    assert ids(search(5, offset=4)) == [f"r{n:03}" for n in range(4, 9)]
    assert search(5, offset=108) == []


@pytest.mark.parametrize("search_by", [by_words, by_both])
def test_searches_by_words_have_the_best_row_of_each_document(
    texts: VectorStore, search_by: Callable[[VectorStore], Page]
) -> None:
    search = search_by(texts)

    assert ids(search(50, group_by="document")) == BEST
    assert ids(search(2, offset=2, group_by="document")) == BEST[2:4]
    found = search(9, group_by="document", where=field("doc") == "b")
    assert [hit.fields["doc"] for hit in found] == ["b"]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ({"offset": -1}, "offset must be a whole number, 0 or more, got -1"),
        ({"offset": 1.5}, "offset must be a whole number"),
        ({"offset": 16_380}, "offset \\+ top_k must be at most 16384, got 16389"),
        ({"offset": 4_092, "group_by": "document"}, "at most 4096, got 4101"),
        ({"group_by": "year"}, "group_by must be 'document' or empty, got 'year'"),
    ],
)
def test_a_page_that_does_not_exist_is_rejected(
    vectors: VectorStore, page: dict[str, Any], message: str
) -> None:
    with pytest.raises(Rejected, match=f"search: .*{message}"):
        vectors.search(EAST, 9, **page)

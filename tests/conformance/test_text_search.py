"""Search by words, and by words and vectors at once: the same hits in every store."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from text_collections import TEXT_STORES, text_collection
from text_rows import EAST, TEXTS, row, rows_of_texts
from waiting import wait_until

from sage_flink.common import ConfigError, Rejected
from sage_flink.db import (
    Collection,
    RowDelete,
    Rrf,
    SearchHit,
    VectorStore,
    Weighted,
    collection,
    field,
)
from sage_flink.db.full_text import STOP_WORDS

DIM = 8


@pytest.fixture(params=TEXT_STORES)
def texts(request: pytest.FixtureRequest) -> Iterator[Collection]:
    """A collection with full-text search and a name of its own, dropped after the test."""
    with text_collection(request) as spec:
        yield spec


@pytest.fixture
def text_store(texts: Collection) -> Iterator[VectorStore]:
    """An empty store of ``texts``."""
    opened = texts.open()
    yield opened
    opened.close()


@pytest.fixture(params=TEXT_STORES, scope="module")
def filled(request: pytest.FixtureRequest) -> Iterator[VectorStore]:
    """A store with the rows of ``text_rows``, for tests that only read; it is made once."""
    with text_collection(request) as spec:
        opened = spec.open()
        rows = rows_of_texts()
        assert not opened.upsert(rows)
        wait_until(lambda: len(opened.search(EAST, 9)) == len(rows), 10, "the rows")
        yield opened
        opened.close()


def ids(hits: list[SearchHit]) -> list[str]:
    return [hit.id for hit in hits]


def test_the_rows_with_the_rarest_words_of_the_query_come_first(filled: VectorStore) -> None:
    hits = filled.search_text("refund policy", 5)

    assert ids(hits)[0] == "refund"
    assert set(ids(hits)) == {"refund", "returns", "privacy"}
    assert ids(hits)[1] == "privacy"  # it has the word twice
    assert hits[0].fields == {"text": TEXTS["refund"], "n": 0}
    assert hits[0].score > hits[1].score > hits[2].score > 0
    assert ids(filled.search_text("refund policy", 1)) == ["refund"]


def test_words_are_found_in_either_case_and_with_their_letters(filled: VectorStore) -> None:
    for text, found in [("e42", "e-42"), ("PRIVACY!", "privacy"), ("größe", "umlaut")]:
        assert ids(filled.search_text(text, 5)) == [found], text


@pytest.mark.parametrize(
    "text",
    [
        "zebra",
        "the and of",
        " ".join(sorted(STOP_WORDS)),
        "?!",
        "\x00",
        "...",
        "refundpolicy",
        "refun*",
        "ref_nd",
        "漢字 🦉",
    ],
)
def test_a_query_without_a_known_word_has_no_hits_by_text_and_those_of_the_vector(
    filled: VectorStore, text: str
) -> None:
    assert filled.search_text(text, 5) == []

    hits = filled.hybrid_search(EAST, text, 3)

    assert ids(hits) == ["refund", "returns", "shipping"]
    assert [hit.score for hit in hits] == pytest.approx([1 / 61, 1 / 62, 1 / 63], abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        '"refund"',
        "'refund",
        "refund*",
        "refund AND (",
        "text: refund",
        'refund" or id != "',
        "refund]) || 1==1",
        "{refund}",
        "$meta refund \\",
        "refund\n\t\x07",
        "refund " * 2_000,
    ],
)
def test_quotes_and_operators_are_never_parsed(filled: VectorStore, text: str) -> None:
    assert ids(filled.search_text(text, 5)) == ["refund"]


def test_a_minus_excludes_nothing(filled: VectorStore) -> None:
    assert ids(filled.search_text("-refund", 5)) == ["refund"]
    assert set(ids(filled.search_text("refund -policy", 5))) == {"refund", "returns", "privacy"}


def test_filters_and_the_least_score_leave_out_rows(filled: VectorStore) -> None:
    best, second, _ = filled.search_text("refund policy", 5)

    assert ids(filled.search_text("policy", 5, where=field("n") == 1)) == ["returns"]
    assert ids(filled.hybrid_search(EAST, "policy", 5, where=field("n") > 2)) == [
        "privacy",
        "e-42",
        "umlaut",
    ]
    assert ids(filled.search_text("refund policy", 5, min_score=second.score - 1e-4)) == [
        best.id,
        second.id,
    ]
    assert filled.search_text("policy", 5, where=field("n").in_([])) == []


def test_ranks_of_both_searches_are_fused(filled: VectorStore) -> None:
    """Vectors: refund, returns, shipping, privacy, ...; words: refund, privacy, returns."""
    hits = filled.hybrid_search(EAST, "refund policy", 4, fusion=Rrf(k=10))

    assert ids(hits) == ["refund", "returns", "privacy", "shipping"]
    shares = [1 / 11 + 1 / 11, 1 / 12 + 1 / 13, 1 / 14 + 1 / 12, 1 / 13]
    assert [hit.score for hit in hits] == pytest.approx(shares, abs=1e-6)
    assert hits[0].fields == {"text": TEXTS["refund"], "n": 0}


def test_weights_count_the_scores_of_both_searches(filled: VectorStore) -> None:
    by_text = {hit.id: hit.score for hit in filled.search_text("e42", 5)}
    hits = filled.hybrid_search(EAST, "e42", 2, fusion=Weighted(dense=0.3, text=0.7))

    assert ids(hits) == ["e-42", "refund"]
    score = 0.3 * (1 + math.cos(0.4)) / 2 + 0.7 * 2 / math.pi * math.atan(by_text["e-42"])
    assert [hit.score for hit in hits] == pytest.approx([score, 0.3], abs=1e-4)
    assert ids(filled.hybrid_search(EAST, "e42", 2, fusion=Weighted(dense=1, text=0))) == [
        "refund",
        "returns",
    ]


def test_a_row_that_only_one_search_finds_early_is_found(text_store: VectorStore) -> None:
    """The row with the word is the farthest of 40; of the first 3 by its vector it would not be."""
    rows = [row(f"r{n:02}", n / 20, text="common words") for n in range(40)]
    text_store.upsert([*rows, row("needle", 3.0, text="common needle")])
    wait_until(lambda: len(text_store.search(EAST, 50)) == 41, 10, "the rows")

    assert "needle" in ids(text_store.hybrid_search(EAST, "needle", 3))


def test_rows_without_a_text_are_stored_as_they_are_and_found_by_their_vectors(
    text_store: VectorStore,
) -> None:
    texts = {"none": None, "number": 5, "empty": "", "some": "fox", "words": "the and ?!"}
    rows = [row(id_, n / 10, text=text) for n, (id_, text) in enumerate(texts.items())]
    assert not text_store.upsert([*rows, row("absent", 0.9)])
    wait_until(lambda: len(text_store.search(EAST, 9)) == 6, 10, "the rows")

    assert ids(text_store.search_text("fox", 5)) == ["some"]
    others = [id_ for id_ in texts if id_ != "some"]
    assert ids(text_store.hybrid_search(EAST, "fox", 9)) == ["some", *others, "absent"]
    assert [hit.fields for hit in text_store.search(EAST, 9)] == [
        *({"text": text} for text in texts.values()),
        {},
    ]
    assert [found.id for found in text_store.scan(field("text") == "")] == ["empty"]


def test_a_changed_text_is_found_by_its_new_words_and_a_deleted_one_not(
    text_store: VectorStore,
) -> None:
    text_store.upsert([row("a", text="fox", doc="d", version="1"), row("b", text="fox hound")])
    text_store.upsert([row("a", text="owl", doc="d", version="2")])
    text_store.delete_where(field("id") == "b")
    wait_until(lambda: ids(text_store.search_text("owl", 5)) == ["a"], 10, "the new text")

    assert text_store.search_text("fox", 5) == []
    text_store.delete([RowDelete("d")])
    wait_until(lambda: text_store.search_text("owl", 5) == [], 10, "the delete")


def test_an_empty_collection_has_no_hits(text_store: VectorStore) -> None:
    assert text_store.search_text("fox", 3) == []
    assert text_store.hybrid_search(EAST, "fox", 3) == []


Search = Callable[[VectorStore], Any]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (lambda store: store.search_text("", 3), "text must not be empty"),
        (lambda store: store.search_text(" \n", 3), "text must not be empty"),
        (lambda store: store.search_text(None, 3), "text must not be empty, got None"),
        (lambda store: store.search_text("\ud800", 3), "not Unicode text"),
        (lambda store: store.search_text("x" * 65_536, 3), "at most 65535 bytes, got 65536"),
        (lambda store: store.search_text("fox", 0), "top_k must be 1 to 16384, got 0"),
        (lambda store: store.search_text("fox", 20_000), "top_k must be 1 to 16384"),
        (lambda store: store.hybrid_search(EAST, "", 3), "text must not be empty"),
        (lambda store: store.hybrid_search(EAST, "fox", 0), "top_k must be 1 to 16384, got 0"),
        (lambda store: store.hybrid_search(EAST[1:], "fox", 3), "vector must have 8 numbers"),
        (lambda store: store.hybrid_search([math.nan, *EAST[1:]], "fox", 3), "not finite"),
        (lambda store: store.hybrid_search([0.0] * 8, "fox", 3), "all zeros"),
    ],
)
def test_an_invalid_search_is_rejected(filled: VectorStore, search: Search, message: str) -> None:
    with pytest.raises(Rejected, match=f"search: .*{message}"):
        search(filled)


def test_a_collection_opened_without_full_text_is_searched_by_words_all_the_same(
    text_store: VectorStore, texts: Collection
) -> None:
    reader = collection(texts.name, dim=8, store=texts.store, url=texts.url).open(create=False)
    reader.upsert([row("a", text="zebra")])
    wait_until(lambda: ids(reader.search_text("zebra", 5)) == ["a"], 10, "the row")

    assert ids(text_store.search_text("zebra", 5)) == ["a"]
    assert ids(reader.search(EAST, 1)) == ["a"]
    reader.close()


def test_a_collection_that_was_made_without_full_text_is_refused(texts: Collection) -> None:
    store = collection(texts.name, dim=8, store=texts.store, url=texts.url).open()

    with pytest.raises(ConfigError, match="full_text=True"):
        texts.prepare()
    for search in (store.search_text, lambda text, k: store.hybrid_search(EAST, text, k)):
        with pytest.raises(ConfigError, match="made without full_text=True"):
            search("fox", 3)
    store.close()

"""Filters have one meaning on every store: what the server finds equals what the filter says."""

import contextlib

import pytest
from filter_samples import ATTACKS, random_filters, random_rows

from sage_flink.common import Rejected
from sage_flink.db import RowFilter, VectorRow, VectorStore, field, parse_filter
from sage_flink.db.vectors import pack

DIM = 8
EAST = [1.0, 0, 0, 0, 0, 0, 0, 0]


def row(id_: str, **fields: object) -> VectorRow:
    return VectorRow(id_, pack([1.0, len(id_), 0, 0, 0, 0, 0, 0]), fields)


def expected(rows: list[VectorRow], where: RowFilter) -> list[str]:
    return sorted(row.id for row in rows if where.matches(row.fields | {"id": row.id}))


def found(store: VectorStore, where: RowFilter) -> list[str]:
    return [row.id for row in store.scan(where, vectors=False)]


@pytest.mark.parametrize(
    ("rows_n", "filters_n"),
    [(400, 150), pytest.param(10_000, 1_000, marks=[pytest.mark.full, pytest.mark.timeout(900)])],
)
def test_random_filters_find_the_rows_for_which_they_are_true(
    store: VectorStore, rows_n: int, filters_n: int
) -> None:
    rows = [
        VectorRow(r.id, pack([*EAST[:-1], n + 1.0]), r.fields)
        for n, r in enumerate(random_rows(rows_n, 1))
    ]
    for at in range(0, rows_n, 500):
        assert not store.upsert(rows[at : at + 500])

    different = []
    for n, where in enumerate(random_filters(filters_n, 2)):
        ids, wanted = found(store, where), expected(rows, where)
        if ids != wanted or (n % 10 == 0 and store.count(where=where) != len(wanted)):
            different.append((str(where), set(ids) ^ set(wanted)))

    assert different == []


def test_the_text_of_a_filter_finds_the_same_rows(store: VectorStore) -> None:
    rows = [row(r.id, **r.fields) for r in random_rows(100, 3)]
    store.upsert(rows)

    for where in random_filters(40, 4):
        assert found(store, parse_filter(str(where))) == expected(rows, where)


def test_no_text_breaks_out_of_a_filter(store: VectorStore) -> None:
    rows = [row(f"a{n}", owner="a", title=text) for n, text in enumerate(ATTACKS)]
    rows += [row(f"b{n}", owner="b", title=text, tags=[text]) for n, text in enumerate(ATTACKS)]
    store.upsert(rows)
    own = field("owner") == "a"

    for n, text in enumerate(ATTACKS):
        title = field("title")
        for condition in (title == text, title.in_([text]), ~(title != text)):
            assert found(store, own & condition) == [f"a{n}"], text
        assert found(store, own & field("tags").contains(text)) == []
        assert found(store, own & (field("doc") == text)) == []
        assert {hit.id for hit in store.search(EAST, 100, where=own & (title == text))} <= {f"a{n}"}
        for where in (field(text) == "x", field("meta")[text] == "x"):
            # A server whose expressions cannot name the field refuses it.
            with contextlib.suppress(Rejected):
                assert found(store, own & where) == []


def test_a_search_returns_the_nearest_rows_that_match(store: VectorStore) -> None:
    store.upsert([row("a" * n, even=n % 2 == 0) for n in range(1, 40)])
    store.count()

    hits = store.search(EAST, 3, where=field("even") == True)  # noqa: E712

    assert [hit.id for hit in hits] == ["aa", "aaaa", "aaaaaa"]
    batch = store.search_batch([EAST, [0, 1.0, *EAST[2:]]], 2, where=field("even") == False)  # noqa: E712
    assert [[hit.id for hit in hits] for hits in batch] == [["a", "aaa"], ["a" * 39, "a" * 37]]


def test_a_search_by_score_leaves_out_what_is_farther(store: VectorStore) -> None:
    store.upsert([row("a" * n) for n in range(1, 10)])
    store.count()
    score = (1 + 3**2) ** -0.5

    hits = store.search(EAST, 10, min_score=score - 1e-6)

    assert [hit.id for hit in hits] == ["a", "aa", "aaa"]


def test_rows_are_read_by_id_and_page_by_page_as_they_were_written(store: VectorStore) -> None:
    rows = [row(f"r{n:04}", n=n, doc=f"d{n % 3}", tags=["x", 1]) for n in range(2_500)]
    for at in range(0, 2_500, 500):
        store.upsert(rows[at : at + 500][::-1])

    assert store.get(["r0007", "absent", "r0002"]) == [rows[7], rows[2]]
    assert list(store.scan()) == rows
    assert list(store.scan(field("n") < 1_100)) == rows[:1_100]
    assert store.count({"r0001", "r2000", "r9999"}, where=field("n") >= 1_000) == 1


def test_rows_that_match_are_deleted(store: VectorStore) -> None:
    store.upsert([row(f"r{n}", n=n) for n in range(10)])

    assert store.delete_where(field("n") >= 6) == 4
    assert store.delete_where(field("n") >= 6) == 0
    assert store.count() == 6

"""Pages of a ranking, and how many of its rows are asked for."""

import pytest

from sage_flink.db import SearchHit
from sage_flink.db.hit_pages import hits_page
from sage_flink.db.vectors import GROUPED_ROWS_MAX


def ranking(*documents: str) -> list[SearchHit]:
    return [SearchHit(f"r{n}", 1.0, {"doc": doc}) for n, doc in enumerate(documents)]


@pytest.mark.parametrize(
    ("documents", "asked", "found"),
    [
        ("abcdefgh", [8], ["r0", "r1"]),
        ("aaaaaaab", [8], ["r0", "r7"]),
        ("aaaaaaaab", [8, 32], ["r0", "r8"]),
        ("a" * 40 + "b", [8, 32, 128], ["r0", "r40"]),
        ("a" * GROUPED_ROWS_MAX + "b", [8, 32, 128, 512, 2048, GROUPED_ROWS_MAX], ["r0"]),
        ("", [8], []),
    ],
)
def test_more_rows_are_asked_for_until_there_are_enough_documents(
    documents: str, asked: list[int], found: list[str]
) -> None:
    rows, limits = ranking(*documents), []

    def ranked(limit: int) -> list[SearchHit]:
        limits.append(limit)
        return rows[:limit]

    hits = hits_page(ranked, 2, offset=0, group_by="document")

    assert [hit.id for hit in hits] == found
    assert limits == asked


def test_a_page_without_documents_asks_once() -> None:
    limits: list[int] = []

    def ranked(limit: int) -> list[SearchHit]:
        limits.append(limit)
        return ranking(*"abcdef")[:limit]

    assert [hit.id for hit in hits_page(ranked, 2, offset=3, group_by="")] == ["r3", "r4"]
    assert limits == [5]

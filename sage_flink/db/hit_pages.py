"""Pages of a ranking of rows, and its best row of each document. Pure.

Documents are found in the rows of the ranking, of which more are asked for until there are enough.
Milvus groups by itself since 2.4, but not in 2.3 nor for each kind of search, and it takes all rows
without a document for one; this way every store has the same pages.

>>> rows = [SearchHit("a/1", 0.9, {"doc": "a"}), SearchHit("a/0", 0.8, {"doc": "a"})]
>>> rows += [SearchHit("x", 0.7), SearchHit("y", 0.6)]
>>> [hit.id for hit in hits_page(lambda limit: rows[:limit], 2, offset=1, group_by="document")]
['x', 'y']
"""

from collections.abc import Callable, Sequence

from sage_flink.common.errors import Rejected
from sage_flink.db.vector_store import SearchHit
from sage_flink.db.vectors import GROUPED_ROWS_MAX, TOP_K_MAX

#: The field of a row's document, and what a search by it is called.
DOC, DOCUMENT = "doc", "document"
#: How many times the rows that are needed at least are asked for, and then again.
OVERFETCH = 4
#: The first rows of a ranking, or fewer where it has no more.
Ranked = Callable[[int], Sequence[SearchHit]]


def hits_page(ranked: Ranked, top_k: int, *, offset: int, group_by: str) -> list[SearchHit]:
    """The ``top_k`` hits of a ranking that follow ``offset`` others.

    Raises:
        Rejected: an unknown ``group_by``, or the page is not within the rows that a search finds.
    """
    end = _page_end(top_k, offset, group_by)
    if not group_by:
        return list(ranked(end)[offset:])
    limit = min(GROUPED_ROWS_MAX, OVERFETCH * end)
    while True:
        rows = ranked(limit)
        found = best_of_documents(rows)
        if len(found) >= end or len(rows) < limit or limit == GROUPED_ROWS_MAX:
            return found[offset:end]
        limit = min(GROUPED_ROWS_MAX, OVERFETCH * limit)


def best_of_documents(rows: Sequence[SearchHit]) -> list[SearchHit]:
    """The first row of each document; a row without one is a document of its own."""
    best: dict[tuple[str, str], SearchHit] = {}
    for hit in rows:
        document = hit.fields.get(DOC)
        best.setdefault((DOC, document) if document else ("id", hit.id), hit)
    return list(best.values())


def _page_end(top_k: int, offset: int, group_by: str) -> int:
    if group_by not in ("", DOCUMENT):
        raise Rejected(f"search: group_by must be {DOCUMENT!r} or empty, got {group_by!r:.100}")
    if not isinstance(offset, int) or isinstance(offset, bool) or offset < 0:
        raise Rejected(f"search: offset must be a whole number, 0 or more, got {offset!r:.100}")
    end_max = GROUPED_ROWS_MAX if group_by else TOP_K_MAX
    if offset + top_k > end_max:
        raise Rejected(f"search: offset + top_k must be at most {end_max}, got {offset + top_k}")
    return offset + top_k

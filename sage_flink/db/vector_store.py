"""The protocol of a vector store: upsert, delete, search and count rows of one collection.

Vectors to be stored are little-endian float32 bytes, as the model pool returns them; a vector to
search for is a sequence of numbers.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from sage_flink.db.filters import RowFilter
from sage_flink.db.fusion import RRF, Fusion


@dataclass(frozen=True, slots=True)
class VectorRow:
    """A row: ``vector`` is ``dim`` little-endian float32; ``fields`` is a JSON object.

    The fields ``doc`` and ``version``, where a row has them, are texts: rows are deleted by them.
    """

    id: str
    vector: bytes
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A row that a search found; a higher ``score`` is better.

    Of :meth:`VectorStore.search` it is the cosine similarity, -1 to 1; of ``search_text`` BM25,
    above 0, without an upper bound, and comparable within one query only; of ``hybrid_search`` what
    the fusion says.
    """

    id: str
    score: float
    fields: dict[str, Any] = field(default_factory=dict)


class RefusedRow(NamedTuple):
    """The id of a row that the store refused for good, and why."""

    id: str
    reason: str


class RowDelete(NamedTuple):
    """Deletes the rows of ``document`` except those of ``version``; an empty one keeps no row."""

    document: str
    version: str = ""


class VectorStore(Protocol):
    """An open collection. One thread at a time.

    A search has its hits in pages: the ``top_k`` that follow ``offset`` others. A page costs as
    much as all before it together. Rows written or deleted between two pages may shift them, and so
    may the server's approximate index; a hybrid search fuses more rows for a later page.

    With ``group_by="document"`` the best row of each document is a hit, and ``top_k`` and
    ``offset`` count documents. A row belongs to one by its field ``doc``; without, it is one by
    itself. Documents are looked for in the 4,096 best rows.
    """

    def upsert(self, rows: Sequence[VectorRow]) -> Sequence[RefusedRow]:
        """Store the rows, one per id, the newest of a batch and of the store; return once stored.

        The rows refused come back, all others are stored. A row is refused when its id or vector
        does not fit the collection, or the store's format cannot hold its fields.

        Raises:
            StoreUnavailable: no row is known to be stored; the same call may succeed later.
        """

    def delete(self, deletes: Sequence[RowDelete]) -> None:
        """Delete the rows of each document except those of the version kept; return once deleted.

        A row belongs to a document by its field ``doc`` and to a version by its field ``version``;
        a row without a version is never kept. Sees all writes acknowledged before the call. A
        document's name is text, whatever it contains, and never an expression.

        Raises:
            StoreUnavailable: some rows may be deleted; the same call may succeed later.
        """

    def delete_where(self, where: RowFilter) -> int:
        """Delete the rows for which the filter is true, and return how many; returns once deleted.

        Sees all writes acknowledged before the call.

        Raises:
            Rejected: the server cannot evaluate the filter; the message names the condition.
            StoreUnavailable: some rows may be deleted; the same call may succeed later.
        """

    def search(
        self,
        vector: Sequence[float],
        top_k: int,
        *,
        where: RowFilter | None = None,
        min_score: float | None = None,
        offset: int = 0,
        group_by: str = "",
    ) -> list[SearchHit]:
        """The ``top_k`` nearest rows, nearest first; fewer when the collection has fewer.

        Only rows for which the filter ``where`` is true, and with a score of ``min_score`` or more.
        A row just written may be missing for a moment; how long depends on the adapter.

        Raises:
            Rejected: the vector has not ``dim`` finite numbers, ``top_k`` or its sum with
                ``offset`` is not 1 to 16384, there is no such ``group_by``, or the server cannot
                evaluate the filter.
            StoreUnavailable: no answer; the same call may succeed later.
        """

    def search_batch(
        self, vectors: Sequence[Sequence[float]], top_k: int, *, where: RowFilter | None = None
    ) -> list[list[SearchHit]]:
        """The hits of each vector, as :meth:`search`, in one request."""

    def search_text(
        self,
        text: str,
        top_k: int,
        *,
        where: RowFilter | None = None,
        min_score: float | None = None,
        offset: int = 0,
        group_by: str = "",
    ) -> list[SearchHit]:
        """The ``top_k`` rows whose field ``text`` fits best by BM25, best first.

        Only rows that have a word of ``text``, else as :meth:`search`. The text is split into words
        and never parsed: quotes, wildcards and operators are not words, and nothing is found by a
        text of unknown words or of the stop words of :mod:`sage_flink.db.full_text` alone.

        Raises:
            ConfigError: the collection has no full-text search.
            Rejected: the text is empty, ``top_k`` is not 1 to 16384, or the server cannot evaluate
                the filter.
            StoreUnavailable: no answer; the same call may succeed later.
        """

    def hybrid_search(
        self,
        vector: Sequence[float],
        text: str,
        top_k: int,
        *,
        where: RowFilter | None = None,
        fusion: Fusion = RRF,
        offset: int = 0,
        group_by: str = "",
    ) -> list[SearchHit]:
        """The ``top_k`` best rows of :meth:`search` and :meth:`search_text` together, best first.

        Each of the two gives the first ``max(50, 2 * top_k)`` rows for which the filter is true (of
        later pages and by document more), and ``fusion`` makes one ranking of them. A text without
        a known word leaves the ranking by vectors.

        Raises:
            As :meth:`search` and :meth:`search_text`.
        """

    def get(self, ids: Collection[str]) -> list[VectorRow]:
        """The rows of ``ids``, with vectors, in the order of the ids; absent ones are left out.

        Sees all writes acknowledged before the call.
        """

    def scan(self, where: RowFilter | None = None, *, vectors: bool = True) -> Iterator[VectorRow]:
        """All rows for which the filter is true, ordered by id, page by page.

        Without ``vectors`` those of the rows are empty, and the pages smaller. Sees all writes
        acknowledged before the call; a later one may be missing.

        Raises:
            Rejected: the server cannot evaluate the filter.
            StoreUnavailable: no answer; start again.
        """

    def count(self, ids: Collection[str] | None = None, *, where: RowFilter | None = None) -> int:
        """How many rows there are, of ``ids``, or for which the filter is true.

        Counts all writes acknowledged before the call.
        """

    def close(self) -> None:
        """Close the client; no write is pending."""

"""Searches of a Milvus collection: by a vector, by words, and by both, each with a filter."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sage_connectors.milvus_client import AnnSearchRequest, RRFRanker, WeightedRanker
from sage_connectors.milvus_collection import REQUEST, MilvusCollection
from sage_connectors.milvus_filters import expression
from sage_connectors.milvus_full_text import BM25_COLUMN, has_bm25
from sage_connectors.milvus_schema import METRIC
from sage_flink.common.errors import ConfigError, Rejected, StoreUnavailable
from sage_flink.db.filters import RowFilter
from sage_flink.db.full_text import query_text
from sage_flink.db.fusion import RRF, Fusion, Rrf, candidates
from sage_flink.db.hit_pages import hits_page
from sage_flink.db.vector_store import SearchHit
from sage_flink.db.vectors import numbers, query_vector

#: What Milvus says of an expression that it cannot parse, and milvus-lite.
NO_EXPRESSION = re.compile(r"cannot parse expression| at column \d+\n")
BM25_SEARCH = {"metric_type": "BM25"}
T = TypeVar("T")


class MilvusSearches(MilvusCollection):
    """A collection that is searched."""

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
        """The nearest rows by HNSW; approximate, ef is at least 64 and at least twice top_k."""
        query = self._vector(vector, top_k)

        def rank(limit: int) -> list[SearchHit]:
            [hits] = self._ask([query], "vector", _hnsw(limit), limit, where)
            return _from(hits, min_score)

        return hits_page(rank, top_k, offset=offset, group_by=group_by)

    def search_batch(
        self, vectors: Sequence[Sequence[float]], top_k: int, *, where: RowFilter | None = None
    ) -> list[list[SearchHit]]:
        """The nearest rows of each vector, in one request."""
        queries = [self._vector(vector, top_k) for vector in vectors]
        return self._ask(queries, "vector", _hnsw(top_k), top_k, where) if queries else []

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
        """The best rows by Milvus's BM25 function, whose statistics are those of all rows."""
        query = query_text(text, top_k)
        self._require_full_text()

        def rank(limit: int) -> list[SearchHit]:
            [hits] = self._ask([query], BM25_COLUMN, BM25_SEARCH, limit, where)
            # milvus-lite answers with the negative of BM25, which itself is above 0 of any match.
            return _from([replace(hit, score=abs(hit.score)) for hit in hits], min_score)

        return hits_page(rank, top_k, offset=offset, group_by=group_by)

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
        """The best rows of both rankings, which Milvus makes and fuses in one request.

        A search by document asks again with more rows, where it has too few documents.
        """
        near, query = self._vector(vector, top_k), query_text(text, top_k)
        self._require_full_text()

        def rank(limit: int) -> list[SearchHit]:
            return self._fused_hits(near, query, limit, where, fusion)

        return hits_page(rank, top_k, offset=offset, group_by=group_by)

    def _fused_hits(
        self, near: list[float], text: str, limit: int, where: RowFilter | None, fusion: Fusion
    ) -> list[SearchHit]:
        count, expr = candidates(limit), self._where(where)
        requests = [
            AnnSearchRequest([near], "vector", _hnsw(count), count, expr),
            AnnSearchRequest([text], BM25_COLUMN, BM25_SEARCH, count, expr),
        ]
        answer = self._read(
            lambda: self.client.hybrid_search(
                self.spec.name,
                requests,
                _ranker(fusion),
                limit=limit,
                output_fields=["$meta", *self.columns],
                consistency_level="Bounded",
                **REQUEST,
            ),
            "hybrid search",
        )
        return self._hits(answer[0])

    def _vector(self, vector: Sequence[float], top_k: int) -> list[float]:
        return list(numbers(query_vector(vector, top_k, dim=self.spec.dim)))

    def _ask(
        self,
        queries: Sequence[Any],
        field: str,
        params: Mapping[str, Any],
        limit: int,
        where: RowFilter | None,
    ) -> list[list[SearchHit]]:
        answer = self._read(
            lambda: self.client.search(
                self.spec.name,
                data=queries,
                anns_field=field,
                limit=limit,
                filter=self._where(where),
                search_params=params,
                output_fields=["$meta", *self.columns],
                consistency_level="Bounded",
                **REQUEST,
            ),
            "search",
        )
        return [self._hits(hits) for hits in answer]

    def _hits(self, hits: Sequence[Mapping[str, Any]]) -> list[SearchHit]:
        return [
            SearchHit(hit["id"], float(hit["distance"]), self._stored_fields(hit["entity"]))
            for hit in hits
        ]

    def _require_full_text(self) -> None:
        # The name may be an alias that has moved since the store was opened.
        if not (self.full_text or has_bm25(self._describe())):
            raise ConfigError(
                f"collection {self.spec.name!r} at {self.url}: it was made without full_text=True; "
                "`sage db reindex --full-text` fills another one from it"
            )

    def _read(self, ask: Callable[[], T], what: str) -> T:
        try:
            return self._call(ask, what)
        except StoreUnavailable as error:
            if NO_EXPRESSION.search(str(error)):
                raise Rejected(f"filter: Milvus cannot evaluate it: {error}") from error
            raise

    def _where(self, where: RowFilter | None) -> str:
        return "" if where is None else expression(where, self.columns)

    def _stored_fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields as they were written: the schema stores a label that is absent as empty."""
        return {k: v for k, v in fields.items() if v != "" or k not in self.labels}


def _from(hits: list[SearchHit], min_score: float | None) -> list[SearchHit]:
    return [hit for hit in hits if min_score is None or hit.score >= min_score]


def _hnsw(limit: int) -> dict[str, Any]:
    return {"metric_type": METRIC, "params": {"ef": max(64, 2 * limit)}}


def _ranker(fusion: Fusion) -> Any:
    if isinstance(fusion, Rrf):
        return RRFRanker(fusion.k)
    # The scores are normalised as Weighted says; without norm_score a server may add them as is.
    return WeightedRanker(fusion.dense, fusion.text, norm_score=True)

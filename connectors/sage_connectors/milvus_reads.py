"""Reads of a Milvus collection: search, get, scan and count, each with a filter."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Collection as Collection_
from typing import Any, TypeVar

import numpy as np
import orjson

from sage_connectors.milvus_collection import REQUEST, MilvusCollection
from sage_connectors.milvus_filters import expression
from sage_connectors.milvus_schema import METRIC
from sage_flink.common.errors import Rejected, StoreUnavailable
from sage_flink.db.filters import RowFilter
from sage_flink.db.vector_store import SearchHit, VectorRow
from sage_flink.db.vectors import numbers, query_vector

#: Names in one expression, which is also how many rows without vectors are one page of a scan.
IDS_MAX = 10_000
PAGE_ROWS, PAGE_ROWS_LEAST = 1_000, 100
NO_EXPRESSION = "cannot parse expression"
T = TypeVar("T")


class MilvusReads(MilvusCollection):
    """A collection that is read."""

    def search(
        self,
        vector: Sequence[float],
        top_k: int,
        *,
        where: RowFilter | None = None,
        min_score: float | None = None,
    ) -> list[SearchHit]:
        """The nearest rows by HNSW; approximate, ef is at least 64 and at least twice top_k."""
        return self._search([vector], top_k, where, min_score)[0]

    def search_batch(
        self, vectors: Sequence[Sequence[float]], top_k: int, *, where: RowFilter | None = None
    ) -> list[list[SearchHit]]:
        """The nearest rows of each vector, in one request."""
        return self._search(vectors, top_k, where, None) if vectors else []

    def _search(
        self,
        vectors: Sequence[Sequence[float]],
        top_k: int,
        where: RowFilter | None,
        min_score: float | None,
    ) -> list[list[SearchHit]]:
        queries = [list(numbers(query_vector(v, top_k, dim=self.spec.dim))) for v in vectors]
        answer = self._read(
            lambda: self.client.search(
                self.spec.name,
                data=queries,
                limit=top_k,
                filter=self._where(where),
                search_params={"metric_type": METRIC, "params": {"ef": max(64, 2 * top_k)}},
                output_fields=["$meta", *self.columns],
                consistency_level="Bounded",
                **REQUEST,
            ),
            "search",
        )
        return [
            [
                SearchHit(hit["id"], float(hit["distance"]), self._stored_fields(hit["entity"]))
                for hit in hits
                if min_score is None or hit["distance"] >= min_score
            ]
            for hits in answer
        ]

    def get(self, ids: Collection_[str]) -> list[VectorRow]:
        """The rows of the ids; waits for the next time tick."""
        found: dict[str, VectorRow] = {}
        for where in among("id", sorted(set(ids)), PAGE_ROWS):
            rows = self._query(where, ["$meta", "vector", *self.columns])
            found |= {row.id: row for row in map(self._row, rows)}
        return [found[id_] for id_ in ids if id_ in found]

    def scan(self, where: RowFilter | None = None, *, vectors: bool = True) -> Iterator[VectorRow]:
        """The rows that match, ordered by id, 1,000 in one request, 10,000 without vectors."""
        fields, expr, last = ["$meta", *self.columns], self._where(where), ""
        page_rows = IDS_MAX
        if vectors:
            page_rows = PAGE_ROWS
            fields.append("vector")
        while True:
            after = f"id > {text_literal(last)}"
            try:
                page = self._query(f"{after} and ({expr})" if expr else after, fields, page_rows)
            except StoreUnavailable:
                # Also of an answer that has too many bytes for the server.
                if page_rows <= PAGE_ROWS_LEAST:
                    raise
                page_rows //= 10
                continue
            yield from map(self._row, page)
            if len(page) < page_rows:
                return
            last = page[-1]["id"]

    def count(self, ids: Collection_[str] | None = None, *, where: RowFilter | None = None) -> int:
        """How many rows there are, of ``ids`` or that match; waits for the next time tick."""
        expr = self._where(where)
        if ids is None:
            return self._count(expr)
        chunks = among("id", sorted(set(ids)))
        return sum(self._count(f"{chunk} and ({expr})" if expr else chunk) for chunk in chunks)

    def ids(self, where: RowFilter) -> list[str]:
        """The ids of the rows that match; waits for the next time tick."""
        expr, found = self._where(where), [""]
        while True:
            after = f"id > {text_literal(found[-1])} and ({expr})"
            page = self._query(after, ["id"], IDS_MAX)
            found += [row["id"] for row in page]
            if len(page) < IDS_MAX:
                return found[1:]

    def _count(self, where: str) -> int:
        return int(self._query(where, ["count(*)"])[0]["count(*)"])

    def _query(
        self, where: str, fields: list[str], limit: int | None = None
    ) -> list[dict[str, Any]]:
        """What is there now: waits until all writes acknowledged before can be seen."""
        pages = {} if limit is None else {"limit": limit}
        answer = self._read(
            lambda: self.client.query(
                self.spec.name,
                filter=where,
                output_fields=fields,
                consistency_level="Strong",
                **pages,
                **REQUEST,
            ),
            "query",
        )
        return list(answer)

    def _read(self, ask: Callable[[], T], what: str) -> T:
        try:
            return self._call(ask, what)
        except StoreUnavailable as error:
            if NO_EXPRESSION in str(error):
                raise Rejected(f"filter: Milvus cannot evaluate it: {error}") from error
            raise

    def _where(self, where: RowFilter | None) -> str:
        return "" if where is None else expression(where, self.columns)

    def _row(self, entity: Mapping[str, Any]) -> VectorRow:
        fields = {k: v for k, v in entity.items() if k not in {"id", "vector"}}
        vector = np.asarray(entity.get("vector", ()), "<f4").tobytes()
        return VectorRow(entity["id"], vector, self._stored_fields(fields))

    def _stored_fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields as they were written: the schema stores a label that is absent as empty."""
        return {k: v for k, v in fields.items() if v != "" or k not in self.labels}


def among(field: str, names: Sequence[str], most: int = IDS_MAX) -> Iterator[str]:
    """Expressions for the rows with one of ``names`` in ``field``."""
    for at in range(0, len(names), most):
        yield f"{field} in {orjson.dumps(names[at : at + most]).decode()}"


def text_literal(text: str) -> str:
    """A text in an expression; Milvus quotes as JSON does."""
    return orjson.dumps(text).decode()

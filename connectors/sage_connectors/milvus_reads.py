"""Reads of a Milvus collection by id and filter: get, scan and count."""

import operator
from collections.abc import Collection as Collection_
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from sage_connectors.milvus_collection import REQUEST
from sage_connectors.milvus_searches import MilvusSearches
from sage_flink.common.errors import ConfigError, StoreUnavailable
from sage_flink.db.filters import RowFilter
from sage_flink.db.vector_store import VectorRow

#: Names in one expression, which is also how many rows without vectors are one page of a scan.
IDS_MAX = 10_000
PAGE_ROWS, PAGE_ROWS_LEAST = 1_000, 100


class MilvusReads(MilvusSearches):
    """A collection that is read. Without ``waits`` no read waits for the writes before it."""

    waits = True

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
                page = self._page(f"{after} and ({expr})" if expr else after, fields, page_rows)
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
            page = self._page(after, ["id"], IDS_MAX)
            found += [row["id"] for row in page]
            if len(page) < IDS_MAX:
                return found[1:]

    def _count(self, where: str) -> int:
        return int(self._query(where, ["count(*)"])[0]["count(*)"])

    def _page(self, where: str, fields: list[str], limit: int) -> list[dict[str, Any]]:
        """The first rows by id. Milvus answers in that order, milvus-lite in that of the writes.

        Raises:
            ConfigError: the server has more rows, and these are not the first: some would be lost.
        """
        page = self._query(where, fields, limit)
        ordered = sorted(page, key=operator.itemgetter("id"))
        if len(page) == limit and page != ordered:
            raise ConfigError(
                f"Milvus at {self.url}, collection {self.spec.name!r}: the server does not order "
                f"rows by id, so at most {limit} can be read in this way; use Milvus itself"
            )
        return ordered

    def _query(
        self, where: str, fields: list[str], limit: int | None = None
    ) -> list[dict[str, Any]]:
        """What is there now: waits, if it does, until all writes acknowledged before are seen."""
        pages = {} if limit is None else {"limit": limit}
        answer = self._read(
            lambda: self.client.query(
                self.spec.name,
                filter=where,
                output_fields=fields,
                consistency_level="Strong" if self.waits else "Bounded",
                **pages,
                **REQUEST,
            ),
            "query",
        )
        return list(answer)

    def _row(self, entity: Mapping[str, Any]) -> VectorRow:
        fields = {k: v for k, v in entity.items() if k not in {"id", "vector"}}
        vector = np.asarray(entity.get("vector", ()), "<f4").tobytes()
        return VectorRow(entity["id"], vector, self._stored_fields(fields))


def among(field: str, names: Sequence[str], most: int = IDS_MAX) -> Iterator[str]:
    """Expressions for the rows with one of ``names`` in ``field``."""
    for at in range(0, len(names), most):
        yield f"{field} in {orjson.dumps(names[at : at + most]).decode()}"


def text_literal(text: str) -> str:
    """A text in an expression; Milvus quotes as JSON does."""
    return orjson.dumps(text).decode()

"""A collection of ``sage.db`` as LangChain's vector store.

A document's text is the row's field ``text``, its metadata are the other fields; those whose name
a row needs for itself (``id``, ``vector``, ``text``, ``metadata``) are in the field ``metadata``.
Metadata ``doc`` and ``version`` must be text: rows are deleted by them.
Rows that a pipeline wrote are documents too.

Source: LangChain, ``langchain_core.vectorstores.VectorStore``.
"""

# ruff: noqa: A002  # filter is LangChain's name

import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from sage_flink.common.errors import Rejected
from sage_flink.db import (
    Collection,
    RefusedRow,
    RowFilter,
    SearchHit,
    VectorRow,
    field,
    parse_filter,
)
from sage_flink.db.filters import All
from sage_flink.db.vectors import numbers, pack

OWN = frozenset({"id", "vector", "text", "metadata"})
BATCH_ROWS, IDS_MAX = 500, 5_000
#: What ``filter=`` takes: a filter, its text, or the values that metadata must equal.
Condition = RowFilter | str | Mapping[str, str | int | float | bool]


class SageVectorStore(VectorStore):
    """The documents of a collection, made when absent; several threads may use it.

    A document that was added is found when ``add_documents`` returns.

    Raises:
        ConfigError: the collection there has another dim, schema or metric.
        StoreUnavailable: the server does not answer; each method too.
    """

    def __init__(self, collection: Collection, embedding: Embeddings) -> None:
        self.collection, self._embedding = collection, embedding
        self._store = collection.open()
        self._lock = threading.Lock()

    @property
    def embeddings(self) -> Embeddings:
        """The model of texts and queries."""
        return self._embedding

    def close(self) -> None:
        """Close the connection."""
        self._store.close()

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed and store the texts, and return their ids; one that exists is replaced.

        Raises:
            Rejected: the store refuses a document; the others are stored.
        """
        given = list(texts)
        names = [id_ or str(uuid.uuid4()) for id_ in ids or [""] * len(given)]
        about = metadatas or [{}] * len(given)
        vectors = self._embedding.embed_documents(given) if given else []
        rows = [
            VectorRow(id_, pack(vector), _fields(text, metadata))
            for id_, vector, text, metadata in zip(names, vectors, given, about, strict=True)
        ]
        refused: list[RefusedRow] = []
        with self._lock:
            for at in range(0, len(rows), BATCH_ROWS):
                refused += self._store.upsert(rows[at : at + BATCH_ROWS])
            self._wait()
        if refused:
            reasons = "; ".join(f"{row.id}: {row.reason}" for row in refused[:3])
            raise Rejected(f"{len(refused)} documents are refused: {reasons}")
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete the documents of the ids; of none given all documents."""
        some = [(ids or [])[at : at + IDS_MAX] for at in range(0, len(ids or []), IDS_MAX)]
        wheres = [field("id").exists()] if ids is None else [field("id").in_(part) for part in some]
        with self._lock:
            for where in wheres:
                self._store.delete_where(where)
            self._wait()
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of the ids, in their order; absent ones are left out."""
        with self._lock:
            return [_document(row.id, row.fields) for row in self._store.get(list(ids))]

    def similarity_search(
        self, query: str, k: int = 4, filter: Condition | None = None, **kwargs: Any
    ) -> list[Document]:
        """The nearest documents for which the filter is true, nearest first."""
        return [found for found, _ in self.similarity_search_with_score(query, k, filter)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Condition | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The nearest documents with their cosine similarity, -1 to 1, higher is nearer."""
        hits = self._search(self._embedding.embed_query(query), k, filter)
        return [(_document(hit.id, hit.fields), hit.score) for hit in hits]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Condition | None = None, **kwargs: Any
    ) -> list[Document]:
        """The documents nearest to a vector."""
        return [_document(hit.id, hit.fields) for hit in self._search(embedding, k, filter)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Condition | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Of the ``fetch_k`` nearest documents ``k`` that are near, and far from each other."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, filter=filter
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Condition | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """The same for a vector."""
        import numpy as np

        hits = self._search(embedding, fetch_k, filter)
        with self._lock:
            rows = self._store.get([hit.id for hit in hits])
        vectors = [list(numbers(row.vector)) for row in rows]
        chosen = maximal_marginal_relevance(np.array(embedding), vectors, lambda_mult, k)
        return [_document(rows[n].id, rows[n].fields) for n in chosen] if rows else []

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        collection: Collection | None = None,
        **kwargs: Any,
    ) -> "SageVectorStore":
        """A store of ``collection`` with the texts added.

        Raises:
            ValueError: there is no collection.
        """
        if collection is None:
            raise ValueError("give collection=sage.db.collection(name, dim=...)")
        store = cls(collection, embedding)
        try:
            store.add_texts(texts, metadatas, ids=ids)
        except BaseException:
            store.close()
            raise
        return store

    def _search(
        self, vector: Sequence[float], k: int, condition: Condition | None
    ) -> list[SearchHit]:
        where = _filter(condition)
        with self._lock:
            return self._store.search(vector, k, where=where)

    def _select_relevance_score_fn(self) -> Any:
        return lambda score: max(0.0, score)

    def _wait(self) -> None:
        """Until a search finds what was written: counting waits for it."""
        self._store.count([""])


def _filter(condition: Condition | None) -> RowFilter | None:
    if condition is None or isinstance(condition, RowFilter):
        return condition
    if isinstance(condition, str):
        return parse_filter(condition)
    equal = [_place(name) == value for name, value in condition.items()]
    return All(tuple(equal)) if equal else None


def _place(name: str) -> Any:
    return field("metadata")[name] if name in OWN else field(name)


def _fields(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in metadata.items() if name not in OWN}
    if nested := {name: value for name, value in metadata.items() if name in OWN}:
        fields["metadata"] = nested
    return fields | {"text": text}


def _document(id_: str, fields: Mapping[str, Any]) -> Document:
    rest = {name: value for name, value in fields.items() if name not in {"text", "metadata"}}
    nested = fields.get("metadata", {})
    if not isinstance(nested, dict) or nested.keys() - OWN:  # of a row that a pipeline wrote
        nested = {"metadata": nested}
    metadata = rest | nested
    return Document(page_content=str(fields.get("text", "")), metadata=metadata, id=id_)

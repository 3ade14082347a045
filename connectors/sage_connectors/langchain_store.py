"""A collection of ``sage.db`` as LangChain's vector store.

A document's text is the row's field ``text``, its metadata are the other fields; those whose name
a row needs for itself (``id``, ``vector``, ``text``, ``metadata``) are in the field ``metadata``.
Metadata ``doc`` and ``version`` must be text: rows are deleted by them.
Rows that a pipeline wrote are documents too. Of a collection with ``full_text=True`` documents are
found by their words, and by words and vectors at once: see ``similarity_search_with_score``.

Source: LangChain, ``langchain_core.vectorstores.VectorStore``.
"""

# ruff: noqa: A002  # filter is LangChain's name

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from sage_connectors.shared_collection import SharedCollection
from sage_flink.common.errors import Rejected
from sage_flink.db import (
    Collection,
    RowFilter,
    Rrf,
    SearchHit,
    VectorRow,
    Weighted,
    field,
    parse_filter,
)
from sage_flink.db.filters import All
from sage_flink.db.fusion import Fusion
from sage_flink.db.vectors import numbers, pack

OWN = frozenset({"id", "vector", "text", "metadata"})
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
        self._rows = SharedCollection(collection)

    @property
    def embeddings(self) -> Embeddings:
        """The model of texts and queries."""
        return self._embedding

    def close(self) -> None:
        """Close the connection."""
        self._rows.close()

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
        self._rows.add(rows, "documents")
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete the documents of the ids; of none given all documents."""
        if ids is None:
            self._rows.clear()
        else:
            self._rows.delete_ids(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of the ids, in their order; absent ones are left out."""
        return [_document(row.id, row.fields) for row in self._rows.get(list(ids))]

    def similarity_search(
        self, query: str, k: int = 4, filter: Condition | None = None, **kwargs: Any
    ) -> list[Document]:
        """The documents of :meth:`similarity_search_with_score`, which has the same options."""
        return [found for found, _ in self.similarity_search_with_score(query, k, filter, **kwargs)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: Condition | None = None,
        *,
        search_type: str = "",
        ranker_type: str = "",
        ranker_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """The best documents for which the filter is true, with their scores, best first.

        ``search_type`` is ``similarity``, by the vector of the query, with the cosine similarity,
        -1 to 1; ``text``, by its words, with BM25; or ``hybrid``, by both. With a ``ranker_type``
        it is ``hybrid``, as in langchain-milvus: ``rrf`` fuses ranks (``ranker_params={"k": 60}``),
        ``weighted`` scores (``{"weights": [0.7, 0.3]}``, that of the vector first). A retriever has
        these options from its ``search_kwargs``.

        Raises:
            Rejected: a search or ranker of another name.
            ConfigError: the collection has no full-text search; the message says what to do.
        """
        fusion = _fusion(ranker_type or "rrf", ranker_params or {})
        kind = search_type or ("hybrid" if ranker_type else "similarity")
        if ranker_type and kind != "hybrid":
            raise Rejected(f"search: a ranker_type is for search_type hybrid, got {kind!r:.100}")
        hits = self._hits(query, k, _filter(filter), kind, fusion)
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
        rows = self._rows.get([hit.id for hit in hits])
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

    def _hits(
        self, query: str, k: int, where: RowFilter | None, kind: str, fusion: Fusion
    ) -> list[SearchHit]:
        match kind:
            case "similarity":
                return self._rows.search(self._embedding.embed_query(query), k, where)
            case "text":
                return self._rows.search_text(query, k, where)
            case "hybrid":
                vector = self._embedding.embed_query(query)
                return self._rows.hybrid_search(vector, query, k, where, fusion)
        rule = "search_type must be similarity, text or hybrid"
        raise Rejected(f"search: {rule}, got {kind!r:.100}")

    def _search(
        self, vector: Sequence[float], k: int, condition: Condition | None
    ) -> list[SearchHit]:
        return self._rows.search(vector, k, _filter(condition))

    def _select_relevance_score_fn(self) -> Any:
        return lambda score: max(0.0, score)


def _filter(condition: Condition | None) -> RowFilter | None:
    if condition is None or isinstance(condition, RowFilter):
        return condition
    if isinstance(condition, str):
        return parse_filter(condition)
    equal = [_place(name) == value for name, value in condition.items()]
    return All(tuple(equal)) if equal else None


def _fusion(ranker_type: str, params: Mapping[str, Any]) -> Fusion:
    if ranker_type == "rrf" and params.keys() <= {"k"}:
        return Rrf(**params)
    if ranker_type == "weighted" and params.keys() <= {"weights"}:
        match params.get("weights", (0.5, 0.5)):
            case [dense, text]:
                return Weighted(dense, text)
    raise Rejected(
        "search: ranker_type must be rrf with ranker_params k, or weighted with weights of vectors "
        f"and of words; got {ranker_type!r:.100} with {dict(params)!r:.100}"
    )


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

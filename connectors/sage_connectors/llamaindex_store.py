"""A collection of ``sage.db`` as LlamaIndex's vector store.

A node's text is the row's field ``text``, and the document that it is part of (``ref_doc_id``) the
field ``doc``, so that the document's deletes apply to it. The node itself, without text and vector,
is JSON in the field ``_node_content``. Its metadata are fields too, for filters; those whose name a
row needs for itself are in the field ``metadata``, and a value that is None or an empty list is no
field. Rows that a pipeline wrote are nodes too.

Source: LlamaIndex, ``llama_index.core.vector_stores.types.BasePydanticVectorStore``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.schema import BaseNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from sage_connectors.shared_collection import SharedCollection
from sage_flink.common.errors import Rejected
from sage_flink.db import Collection, RowFilter, SearchHit, VectorRow, Weighted, field
from sage_flink.db.fields import Field
from sage_flink.db.filter_values import OPERATORS
from sage_flink.db.filters import All, Comparison, Either
from sage_flink.db.fusion import RRF, Fusion
from sage_flink.db.vectors import numbers, pack

CONTENT, KIND = "_node_content", "_node_type"
OWN = frozenset({"id", "vector", "text", "metadata", "doc", "version", CONTENT, KIND})
#: LlamaIndex's names of the document, which is in ``doc``.
DOCUMENT_IDS = ("document_id", "doc_id", "ref_doc_id")
#: For ``mmr``: this many times the nodes wanted are compared with each other.
MMR_FETCH = 4


class LlamaIndexStore(BasePydanticVectorStore):
    """The nodes of a collection, made when absent; several threads may use it.

    A node that was added is found when ``add`` returns. Query modes: ``default`` and ``mmr``, with
    the cosine similarity; of a collection with ``full_text=True`` also ``text_search`` and
    ``sparse``, by words, with BM25, and ``hybrid``, by both: without ``alpha`` fused by ranks, with
    it by scores, of which ``alpha`` is the weight of the vector's, 0 to 1.

    Raises:
        ConfigError: the collection there has another dim, schema or metric.
        StoreUnavailable: the server does not answer; each method too.
    """

    stores_text: bool = True
    _rows: SharedCollection = PrivateAttr()

    def __init__(self, collection: Collection) -> None:
        super().__init__(stores_text=True)
        self._rows = SharedCollection(collection)

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name of the class."""
        return "LlamaIndexStore"

    @property
    def client(self) -> SharedCollection:
        """The open collection."""
        return self._rows

    def close(self) -> None:
        """Close the connection."""
        self._rows.close()

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Store the nodes with their vectors, and return their ids; one that exists is replaced.

        Raises:
            Rejected: the store refuses a node; the others are stored.
        """
        rows = [VectorRow(n.node_id, pack(n.get_embedding()), _fields(n)) for n in nodes]
        self._rows.add(rows, "nodes")
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Delete the nodes of a document."""
        self._rows.delete_where(field("doc") == ref_doc_id)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **_: Any,
    ) -> None:
        """Delete the nodes of the ids for which the filters are true; of neither given none."""
        where = _where(node_ids, None, filters)
        if where is not None:
            self._rows.delete_where(where)

    def clear(self) -> None:
        """Delete all nodes."""
        self._rows.clear()

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """The nodes of the ids for which the filters are true, ordered by id."""
        found = self._rows.scan(_where(node_ids, None, filters))
        return [_node(row.id, row.fields) for row in found]

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        """The best nodes with their scores, best first.

        Raises:
            Rejected: the query has no vector or text, or a mode or filter that the store does not
                have.
            ConfigError: the mode needs full-text search, which the collection does not have; the
                message says what to do.
        """
        # LlamaIndex's retriever says with an empty list that it wants no ids in particular.
        where = _where(query.node_ids or None, query.doc_ids or None, query.filters)
        hits = self._hits(query, where)
        return VectorStoreQueryResult(
            nodes=[_node(hit.id, hit.fields) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.id for hit in hits],
        )

    def _hits(self, query: VectorStoreQuery, where: RowFilter | None) -> list[SearchHit]:
        k = query.similarity_top_k
        match query.mode:
            case VectorStoreQueryMode.DEFAULT:
                return self._rows.search(_vector(query), k, where)
            case VectorStoreQueryMode.MMR:
                return self._diverse_hits(query, _vector(query), where)
            case VectorStoreQueryMode.TEXT_SEARCH | VectorStoreQueryMode.SPARSE:
                return self._rows.search_text(_text(query), query.sparse_top_k or k, where)
            case VectorStoreQueryMode.HYBRID:
                k, vector, text = query.hybrid_top_k or k, _vector(query), _text(query)
                return self._rows.hybrid_search(vector, text, k, where, _fusion(query.alpha))
        modes = "default, mmr, text_search, sparse or hybrid"
        raise Rejected(f"query: mode must be {modes}, got {query.mode.value}")

    def _diverse_hits(
        self, query: VectorStoreQuery, vector: list[float], where: RowFilter | None
    ) -> list[SearchHit]:
        near = self._rows.search(vector, MMR_FETCH * query.similarity_top_k, where)
        hits = {hit.id: hit for hit in near}
        rows = self._rows.get(hits)
        _, chosen = get_top_k_mmr_embeddings(
            vector,
            [list(numbers(row.vector)) for row in rows],
            similarity_top_k=query.similarity_top_k,
            embedding_ids=[row.id for row in rows],
            mmr_threshold=query.mmr_threshold,
        )
        return [hits[id_] for id_ in chosen]


def _vector(query: VectorStoreQuery) -> list[float]:
    if query.query_embedding is None:
        raise Rejected(f"query: mode {query.mode.value} needs a vector; query_embedding is None")
    return query.query_embedding


def _text(query: VectorStoreQuery) -> str:
    if query.query_str is None:
        raise Rejected(f"query: mode {query.mode.value} needs a text; query_str is None")
    return query.query_str


def _fusion(alpha: float | None) -> Fusion:
    return RRF if alpha is None else Weighted(dense=alpha, text=1 - alpha)


def _fields(node: BaseNode) -> dict[str, Any]:
    fields = node_to_metadata_dict(node, remove_text=True)
    own = {CONTENT: fields.pop(CONTENT), KIND: fields.pop(KIND), "text": node.get_content()}
    if node.ref_doc_id is not None:
        own["doc"] = node.ref_doc_id
    for name in DOCUMENT_IDS:
        fields.pop(name, None)
    present = {name: value for name, value in fields.items() if value is not None and value != []}
    nested = {name: value for name, value in present.items() if name in OWN}
    plain = {name: value for name, value in present.items() if name not in OWN}
    return plain | ({"metadata": nested} if nested else {}) | own


def _node(id_: str, fields: Mapping[str, Any]) -> BaseNode:
    text = str(fields.get("text", ""))
    if CONTENT in fields:
        return metadata_dict_to_node(dict(fields), text=text)
    metadata = {name: value for name, value in fields.items() if name != "text"}
    node = TextNode(id_=id_, text=text, metadata=metadata)
    if document := fields.get("doc"):
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=str(document))
    return node


def _where(
    ids: Sequence[str] | None, documents: Sequence[str] | None, filters: MetadataFilters | None
) -> RowFilter | None:
    conditions = [] if ids is None else [field("id").in_(ids)]
    conditions += [] if documents is None else [field("doc").in_(documents)]
    conditions += [_condition(filters)] if filters is not None and filters.filters else []
    return All(tuple(conditions)) if conditions else None


def _condition(wanted: MetadataFilter | MetadataFilters) -> RowFilter:
    if isinstance(wanted, MetadataFilter):
        return _compare(_place(wanted.key), wanted)
    parts = tuple(map(_condition, wanted.filters))
    match wanted.condition:
        case None | "and":
            return All(parts)
        case "or":
            return Either(parts)
        case "not":
            return ~Either(parts)
    raise Rejected(f"filter: a condition must be and, or, not; got {wanted.condition!r:.100}")


def _place(key: str) -> Field:
    if key in DOCUMENT_IDS:
        return field("doc")
    return field("metadata")[key] if key in OWN - {"doc", "version"} else field(key)


def _compare(place: Field, wanted: MetadataFilter) -> RowFilter:
    value: Any = wanted.value
    items = tuple(value) if isinstance(value, list) else (value,)
    if wanted.operator.value in OPERATORS:
        return Comparison(place.place, wanted.operator.value, value)
    match wanted.operator:
        case FilterOperator.IN:
            return place.in_(items)
        case FilterOperator.NIN:
            return place.exists() & ~place.in_(items)
        case FilterOperator.CONTAINS:
            return place.contains(value)
        case FilterOperator.ANY:
            return Either(tuple(map(place.contains, items)))
        case FilterOperator.ALL:
            return All(tuple(map(place.contains, items)))
        case FilterOperator.TEXT_MATCH if isinstance(value, str):
            return place.like("%" + re.sub(r"([%_\\])", r"\\\1", value) + "%")
        case FilterOperator.IS_EMPTY:
            return ~place.exists()
    raise Rejected(f"filter: {wanted.key!r}: no {wanted.operator.value} of {value!r:.100}")

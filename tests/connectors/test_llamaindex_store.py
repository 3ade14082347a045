"""A collection as LlamaIndex's vector store: nodes, filters, deletes, and its stock RAG example."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.schema import BaseNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from sage_connectors.llamaindex_store import LlamaIndexStore
from sage_flink.common import Rejected
from sage_flink.db import RowDelete, VectorRow, collection, memory
from sage_flink.db.vectors import pack

DIM = 8
SPEC = collection("llamaindex", dim=DIM, store="memory")
NODES = {
    "fox": {"year": 2023, "lang": "en", "id": 7, "doc": "own"},
    "badger": {"year": 2024, "lang": "de", "tags": ["x", "y"], "none": None},
    "hare": {"year": 2025, "lang": "en", "tags": ["y"], "note": "50 % _off_"},
}


def vector_of(text: str) -> list[float]:
    return [byte / 255 - 0.5 for byte in hashlib.sha256(text.encode()).digest()[:DIM]]


class HashEmbedding(BaseEmbedding):
    """A vector by the hash of the text."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return vector_of(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return vector_of(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return vector_of(query)


def node(name: str, document: str = "animals") -> TextNode:
    text = f"a {name}"
    made = TextNode(id_=name, text=text, metadata=NODES[name], embedding=vector_of(text))
    made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
    return made


@pytest.fixture
def store() -> Iterator[LlamaIndexStore]:
    opened = LlamaIndexStore(SPEC)
    opened.add([node(name) for name in NODES])
    yield opened
    opened.close()
    memory.forget(SPEC.name)


def query(store: LlamaIndexStore, text: str = "a fox", k: int = 9, **more: Any) -> list[str]:
    wanted = VectorStoreQuery(vector_of(text), similarity_top_k=k, **more)
    return list(store.query(wanted).ids or [])


def without_vector(found: BaseNode) -> dict[str, Any]:
    return found.model_copy(update={"embedding": None}).model_dump()


def test_nodes_come_back_as_they_were_added(store: LlamaIndexStore) -> None:
    found = store.query(VectorStoreQuery(vector_of("a badger"), similarity_top_k=1))

    assert found.nodes is not None
    assert without_vector(found.nodes[0]) == without_vector(node("badger"))
    assert found.nodes[0].ref_doc_id == "animals"
    assert found.similarities == [pytest.approx(1.0)]
    assert [n.node_id for n in store.get_nodes()] == ["badger", "fox", "hare"]


@pytest.mark.parametrize(
    ("key", "operator", "value", "ids"),
    [
        ("year", "==", 2024, {"badger"}),
        ("year", "!=", 2024, {"fox", "hare"}),
        ("year", ">", 2024, {"hare"}),
        ("year", ">=", 2024, {"badger", "hare"}),
        ("year", "<", 2024, {"fox"}),
        ("year", "<=", 2024, {"fox", "badger"}),
        ("lang", "in", ["de", "fr"], {"badger"}),
        ("lang", "nin", ["de", "fr"], {"fox", "hare"}),
        ("tags", "contains", "y", {"badger", "hare"}),
        ("tags", "any", ["x", "z"], {"badger"}),
        ("tags", "all", ["x", "y"], {"badger"}),
        ("tags", "is_empty", None, {"fox"}),
        ("none", "is_empty", None, {"fox", "badger", "hare"}),
        ("note", "text_match", "% _", {"hare"}),
        ("note", "text_match", "%__", set()),
        ("id", "==", 7, {"fox"}),
        ("doc", "==", "animals", {"fox", "badger", "hare"}),
        ("ref_doc_id", "==", "animals", {"fox", "badger", "hare"}),
    ],
)
def test_a_filter_leaves_out_nodes(
    store: LlamaIndexStore, key: str, operator: str, value: Any, ids: set[str]
) -> None:
    one = MetadataFilter(key=key, value=value, operator=FilterOperator(operator))
    filters = MetadataFilters(filters=[one])

    assert set(query(store, filters=filters)) == ids
    assert {found.node_id for found in store.get_nodes(filters=filters)} == ids
    assert set(query(store, filters=filters, mode=VectorStoreQueryMode.MMR)) == ids


def test_filters_are_combined(store: LlamaIndexStore) -> None:
    english = MetadataFilter(key="lang", value="en")
    recent = MetadataFilter(key="year", value=2024, operator=FilterOperator.GTE)

    def ids(condition: FilterCondition) -> set[str]:
        inner = MetadataFilters(filters=[english, recent], condition=condition)
        return set(query(store, filters=MetadataFilters(filters=[inner])))

    assert ids(FilterCondition.AND) == {"hare"}
    assert ids(FilterCondition.OR) == {"fox", "badger", "hare"}
    assert query(store, node_ids=["fox", "absent"]) == ["fox"]
    assert query(store, doc_ids=["other"]) == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"mode": VectorStoreQueryMode.SVM}, "mode must be default, mmr, .* got svm"),
        (
            {"filters": MetadataFilters(filters=[MetadataFilter(key="a b", value=[1])])},
            "filter: ",
        ),
    ],
)
def test_what_the_store_does_not_have_is_refused(
    store: LlamaIndexStore, more: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Rejected, match=reason):
        query(store, **more)


def test_a_document_is_deleted_by_llamaindex_and_by_a_pipeline(store: LlamaIndexStore) -> None:
    store.add([node("hare", "more"), node("fox", "other")])

    store.delete("animals")
    assert sorted(query(store)) == ["fox", "hare"]
    SPEC.open().delete([RowDelete("more")])
    assert query(store) == ["fox"]

    store.delete_nodes()
    store.delete_nodes(["hare"])
    assert query(store) == ["fox"]
    store.delete_nodes(["fox"])
    assert query(store) == []


def test_all_nodes_are_cleared(store: LlamaIndexStore) -> None:
    store.clear()

    assert store.get_nodes() == []


def test_rows_of_a_pipeline_are_nodes(store: LlamaIndexStore) -> None:
    fields = {"text": "of a pipeline", "doc": "p", "ordinal": 0}
    SPEC.open().upsert([VectorRow("p/0", pack(vector_of("p")), fields)])

    (found,) = store.get_nodes(["p/0"])

    assert (found.get_content(), found.ref_doc_id) == ("of a pipeline", "p")
    assert found.metadata == {"doc": "p", "ordinal": 0}


def test_mmr_prefers_nodes_that_differ(store: LlamaIndexStore) -> None:
    store.clear()
    near, same, far = [1.0] * DIM, [1.0] * (DIM - 1) + [0.9], [1.0, -1.0] * (DIM // 2)
    vectors = {"near": near, "same": same, "far": far}
    store.add([TextNode(id_=n, text=n, embedding=v) for n, v in vectors.items()])
    wanted = VectorStoreQuery(near, similarity_top_k=2, mmr_threshold=0.1)
    wanted.mode = VectorStoreQueryMode.MMR

    assert store.query(wanted).ids == ["near", "far"]


def test_llamaindexs_rag_example_answers_from_the_collection(store: LlamaIndexStore) -> None:
    store.clear()
    documents = [Document(text=f"{name} lives in {name}land.", id_=name) for name in "abc"]
    context = StorageContext.from_defaults(vector_store=store)

    index = VectorStoreIndex.from_documents(
        documents, storage_context=context, embed_model=HashEmbedding()
    )
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=3)
    response = engine.query("Where does b live?")

    assert "b lives in bland." in str(response)
    assert {n.node.ref_doc_id for n in response.source_nodes} == {"a", "b", "c"}
    index.delete_ref_doc("b")
    later = VectorStoreIndex.from_vector_store(store, embed_model=HashEmbedding())
    found = later.as_retriever(similarity_top_k=3).retrieve("Where does b live?")
    assert {n.node.ref_doc_id for n in found} == {"a", "c"}

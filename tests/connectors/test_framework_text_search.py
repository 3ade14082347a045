"""Search by words, and by words and vectors, as users of LangChain and LlamaIndex ask for it."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from text_rows import EAST, row, rows_of_texts
from waiting import wait_until

from sage_connectors.langchain_store import SageVectorStore
from sage_connectors.llamaindex_store import LlamaIndexStore
from sage_flink.common import ConfigError, Rejected
from sage_flink.db import Collection, Rrf, Weighted, collection, memory

DIM = 8
STORES = [
    pytest.param("memory", id="memory"),
    pytest.param("milvus", id="milvus-lite", marks=pytest.mark.processes),
]
#: The nearest row has not the word, and the row with the word is far.
WORD, NEAREST, WITH_WORD = "pump", "refund", "e-42"


class East(Embeddings):
    """One vector for every text."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [EAST for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return EAST


@pytest.fixture(params=STORES, scope="module")
def texts(request: pytest.FixtureRequest) -> Iterator[Collection]:
    """A collection with full-text search and the rows of ``text_rows``."""
    on_server = request.param != "memory"
    url = request.getfixturevalue("milvus_lite") if on_server else ""
    name = f"frameworks_{uuid.uuid4().hex}"
    spec = collection(name, dim=DIM, store=request.param, url=url, full_text=True)
    store = spec.open()
    assert not store.upsert(rows_of_texts())
    wait_until(lambda: len(store.search(EAST, 9)) == len(rows_of_texts()), 10, "the rows")
    yield spec
    if on_server:
        store.drop()  # type: ignore[attr-defined]
    store.close()
    memory.forget(name)


@pytest.fixture
def langchain(texts: Collection) -> Iterator[SageVectorStore]:
    store = SageVectorStore(texts, East())
    yield store
    store.close()


@pytest.fixture
def llamaindex(texts: Collection) -> Iterator[LlamaIndexStore]:
    store = LlamaIndexStore(texts)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({}, [NEAREST, "returns"]),
        ({"search_type": "similarity"}, [NEAREST, "returns"]),
        ({"search_type": "text"}, [WITH_WORD]),
        ({"search_type": "hybrid"}, [WITH_WORD, NEAREST]),
        ({"ranker_type": "rrf"}, [WITH_WORD, NEAREST]),
        ({"ranker_type": "rrf", "ranker_params": {"k": 10}}, [WITH_WORD, NEAREST]),
        ({"ranker_type": "weighted", "ranker_params": {"weights": [1, 0]}}, [NEAREST, "returns"]),
        ({"ranker_type": "weighted"}, [WITH_WORD, NEAREST]),
        ({"search_type": "hybrid", "filter": "n < 3"}, [NEAREST, "returns"]),
    ],
)
def test_langchain_searches_by_vector_words_or_both(
    langchain: SageVectorStore, options: dict[str, Any], ids: list[str]
) -> None:
    found = langchain.similarity_search(WORD, k=2, **options)
    retriever = langchain.as_retriever(search_kwargs={"k": 2, **options})

    assert [document.id for document in found] == ids
    assert [document.id for document in retriever.invoke(WORD)] == ids


def test_langchain_has_the_scores_of_the_search(
    langchain: SageVectorStore, texts: Collection
) -> None:
    store = texts.open()
    params = {"weights": [0.3, 0.7]}
    for options, expected in (
        ({"search_type": "text"}, store.search_text(WORD, 2)),
        (
            {"ranker_type": "rrf", "ranker_params": {"k": 10}},
            store.hybrid_search(EAST, WORD, 2, fusion=Rrf(10)),
        ),
        (
            {"ranker_type": "weighted", "ranker_params": params},
            store.hybrid_search(EAST, WORD, 2, fusion=Weighted(0.3, 0.7)),
        ),
    ):
        found = langchain.similarity_search_with_score(WORD, k=2, **options)
        assert [(document.id, score) for document, score in found] == [
            (hit.id, pytest.approx(hit.score)) for hit in expected
        ]
    store.close()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"search_type": "best"}, "search_type must be similarity, text or hybrid, got 'best'"),
        ({"search_type": "text", "ranker_type": "rrf"}, "ranker_type is for search_type hybrid"),
        ({"ranker_type": "best"}, "ranker_type must be rrf"),
        ({"ranker_type": "rrf", "ranker_params": {"weights": [1]}}, "ranker_type must be rrf"),
        ({"ranker_type": "weighted", "ranker_params": {"weights": [1]}}, "weights of vectors"),
    ],
)
def test_langchain_is_told_what_a_search_may_be(
    langchain: SageVectorStore, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Rejected, match=reason):
        langchain.similarity_search(WORD, **options)


def query(store: LlamaIndexStore, mode: VectorStoreQueryMode, **more: Any) -> list[str]:
    fields = {"query_embedding": EAST, "query_str": WORD, "similarity_top_k": 2, **more}
    return list(store.query(VectorStoreQuery(mode=mode, **fields)).ids or [])


@pytest.mark.parametrize(
    ("mode", "more", "ids"),
    [
        ("default", {}, [NEAREST, "returns"]),
        ("text_search", {"query_embedding": None}, [WITH_WORD]),
        ("sparse", {"query_embedding": None}, [WITH_WORD]),
        ("text_search", {"query_str": "policy", "sparse_top_k": 1}, ["privacy"]),
        ("hybrid", {}, [WITH_WORD, NEAREST]),
        ("hybrid", {"hybrid_top_k": 1}, [WITH_WORD]),
        ("hybrid", {"alpha": 1.0}, [NEAREST, "returns"]),
        ("hybrid", {"alpha": 0.5}, [WITH_WORD, NEAREST]),
    ],
)
def test_llamaindex_searches_by_vector_words_or_both(
    llamaindex: LlamaIndexStore, mode: str, more: dict[str, Any], ids: list[str]
) -> None:
    assert query(llamaindex, VectorStoreQueryMode(mode), **more) == ids


def test_llamaindexs_filters_leave_out_nodes_of_a_hybrid_search(
    llamaindex: LlamaIndexStore,
) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="n", value=1)])

    assert query(llamaindex, VectorStoreQueryMode.HYBRID, filters=filters) == ["returns"]


def test_llamaindexs_retriever_searches_by_words_and_both(llamaindex: LlamaIndexStore) -> None:
    index = VectorStoreIndex.from_vector_store(llamaindex, embed_model=MockEmbedding(DIM))
    for mode, count in (("text_search", 1), ("hybrid", 2)):
        retriever = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=2)
        found = retriever.retrieve(WORD)

        assert len(found) == count
        assert WITH_WORD in {node.node.node_id for node in found}


@pytest.mark.parametrize(
    ("mode", "missing"), [("text_search", "query_str"), ("hybrid", "query_str")]
)
def test_llamaindex_is_told_that_a_text_is_missing(
    llamaindex: LlamaIndexStore, mode: str, missing: str
) -> None:
    with pytest.raises(Rejected, match=f"mode {mode} needs a text; {missing} is None"):
        query(llamaindex, VectorStoreQueryMode(mode), query_str=None)


def test_a_collection_without_full_text_says_what_to_do(texts: Collection) -> None:
    name = f"plain_{uuid.uuid4().hex}"
    spec = collection(name, dim=DIM, store=texts.store, url=texts.url)
    store = spec.open()
    store.upsert([row("a", text="a fox")])
    langchain, llamaindex = SageVectorStore(spec, East()), LlamaIndexStore(spec)
    advice = "made without full_text=True; .*(reindex --full-text|another name)"

    for options in ({"search_type": "text"}, {"ranker_type": "rrf"}):
        with pytest.raises(ConfigError, match=advice):
            langchain.similarity_search("fox", **options)
    for mode in (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.HYBRID):
        with pytest.raises(ConfigError, match=advice):
            query(llamaindex, mode)

    langchain.close()
    llamaindex.close()
    if texts.store != "memory":
        store.drop()  # type: ignore[attr-defined]
    store.close()
    memory.forget(name)

"""A collection as LangChain's vector store: documents, metadata, filters, and what is refused.

LangChain's own suite, ``langchain_tests.integration_tests.VectorStoreIntegrationTests``, is not run
here: its package brings plugins of pytest that are in the way of this suite.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from sage_connectors.langchain_store import SageVectorStore
from sage_flink.common import Rejected
from sage_flink.db import VectorRow, collection, field, memory
from sage_flink.db.vectors import pack

DIM = 6
DOCUMENTS = [
    Document("a fox", metadata={"year": 2023, "lang": "en", "id": 7}, id="fox"),
    Document("ein Dachs", metadata={"year": 2024, "lang": "de", "tags": ["x"]}, id="badger"),
    Document("a hare", metadata={"year": 2025, "lang": "en", "metadata": {"k": 1}}, id="hare"),
]


@pytest.fixture
def store() -> Iterator[SageVectorStore]:
    spec = collection("langchain", dim=DIM, store="memory")
    opened = SageVectorStore(spec, DeterministicFakeEmbedding(size=DIM))
    opened.add_documents(DOCUMENTS)
    yield opened
    opened.close()
    memory.forget(spec.name)


def test_documents_come_back_as_they_were_added(store: SageVectorStore) -> None:
    assert store.get_by_ids(["hare", "absent", "fox"]) == [DOCUMENTS[2], DOCUMENTS[0]]
    assert store.similarity_search("a fox", k=1) == [DOCUMENTS[0]]
    ((found, score),) = store.similarity_search_with_score("ein Dachs", k=1)
    assert (found, score) == (DOCUMENTS[1], pytest.approx(1.0))


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (field("year") >= 2024, {"badger", "hare"}),
        ('lang == "en" and year < 2025', {"fox"}),
        ({"lang": "en", "year": 2025}, {"hare"}),
        ({"id": 7}, {"fox"}),
        ({}, {"fox", "badger", "hare"}),
        (None, {"fox", "badger", "hare"}),
    ],
)
def test_a_filter_leaves_out_documents(store: SageVectorStore, condition, found) -> None:
    assert {d.id for d in store.similarity_search("a fox", k=9, filter=condition)} == found
    kept = store.as_retriever(search_kwargs={"k": 9, "filter": condition}).invoke("a fox")
    assert {document.id for document in kept} == found
    mmr = store.max_marginal_relevance_search("a fox", k=9, filter=condition)
    assert {document.id for document in mmr} == found


def test_rows_of_a_pipeline_are_documents(store: SageVectorStore) -> None:
    row = VectorRow("p/0", pack([1.0] * DIM), {"text": "of a pipeline", "doc": "p", "ordinal": 0})
    assert not store.collection.open().upsert([row])

    assert store.get_by_ids(["p/0"]) == [
        Document("of a pipeline", metadata={"doc": "p", "ordinal": 0}, id="p/0")
    ]


def test_metadata_of_a_row_of_a_pipeline_is_kept_as_it_is(store: SageVectorStore) -> None:
    fields = {"text": "t", "author": "B", "metadata": {"author": "A"}}
    store.collection.open().upsert([VectorRow("p/1", pack([1.0] * DIM), fields)])

    (found,) = store.get_by_ids(["p/1"])
    assert found.metadata == {"author": "B", "metadata": {"author": "A"}}


def test_a_document_that_the_store_refuses_is_named_and_the_others_are_stored(
    store: SageVectorStore,
) -> None:
    bad = Document("bad", metadata={"price": float("nan")}, id="bad")
    with pytest.raises(Rejected, match="1 documents are refused: bad: field 'price' is nan"):
        store.add_documents([Document("good", id="good"), bad])

    assert [d.id for d in store.get_by_ids(["good", "bad"])] == ["good"]


def test_documents_are_deleted_by_id_or_all(store: SageVectorStore) -> None:
    store.delete(["fox", "absent"])
    assert {d.id for d in store.similarity_search("x", k=9)} == {"badger", "hare"}

    store.delete()
    assert store.similarity_search("x", k=9) == []


def test_threads_and_coroutines_may_use_one_store(store: SageVectorStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: store.add_texts([f"t{n}"], ids=[f"t{n}"]), range(50)))

    async def ask() -> list[list[Document]]:
        return await asyncio.gather(*(store.asimilarity_search(f"t{n}", k=1) for n in range(50)))

    assert [found[0].id for found in asyncio.run(ask())] == [f"t{n}" for n in range(50)]


def test_a_chain_answers_from_the_documents(store: SageVectorStore) -> None:
    prompt = ChatPromptTemplate.from_template("{context} | {question}")
    chain = (
        {"context": store.as_retriever(search_kwargs={"k": 1}), "question": RunnablePassthrough()}
        | prompt
        | RunnableLambda(lambda message: message.to_string())
    )

    assert "ein Dachs" in chain.invoke("ein Dachs")


def test_from_texts_needs_a_collection() -> None:
    with pytest.raises(ValueError, match="give collection="):
        SageVectorStore.from_texts(["a"], DeterministicFakeEmbedding(size=DIM))

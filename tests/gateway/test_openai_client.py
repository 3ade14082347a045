"""Each feature of OpenAI's client and LangChain once, with the stack's real engines."""

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from waiting import wait_until

from sage_connectors.milvus_server import MilvusServer
from sage_flink import db
from sage_flink.common import Settings

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]

HELLO: Any = [{"role": "user", "content": "Say hello."}]
CHAT, VECTORS = "smollm2", "minilm"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class City(BaseModel):
    """A structured answer."""

    name: str
    people: int


@pytest.fixture(scope="module")
def where() -> dict[str, str]:
    """The options of a client of the gateway."""
    settings = Settings.load()
    return {"base_url": f"{settings.gateway_url}/v1", "api_key": settings.secret("gateway")}


@pytest.fixture
def client(where: dict[str, str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(**where, max_retries=0, timeout=120) as client:
        yield client


def complete_chat(client: openai.OpenAI, **more: Any) -> Any:
    wanted = {"model": CHAT, "messages": HELLO, "max_tokens": 16, "temperature": 0, **more}
    return client.chat.completions.create(**wanted)


def test_models_are_listed_and_retrieved_by_name(client: openai.OpenAI) -> None:
    listed = {model.id for model in client.models.list()}

    assert {CHAT, VECTORS} <= listed
    assert client.models.retrieve(CHAT).id == CHAT


def test_a_completion_is_answered(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=CHAT, prompt="One, two, three,", max_tokens=4)

    assert answer.choices[0].text


def test_a_stream_ends_with_its_usage(client: openai.OpenAI) -> None:
    chunks = list(complete_chat(client, stream=True, stream_options={"include_usage": True}))

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage.completion_tokens > 0


@pytest.mark.xfail(
    strict=True, reason="llama.cpp within xllamacpp writes no tools into this model's prompt"
)
def test_a_required_tool_is_called(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = complete_chat(
        client, messages=messages, tools=[WEATHER], tool_choice="required", max_tokens=16
    )

    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)


def test_an_answer_keeps_to_its_schema(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Tell me of Paris as JSON."}]
    answer = client.chat.completions.parse(
        model=CHAT, messages=messages, response_format=City, max_tokens=100, temperature=0
    )

    assert isinstance(answer.choices[0].message.parsed, City)


def test_a_stop_ends_the_text(client: openai.OpenAI) -> None:
    whole = client.completions.create(
        model=CHAT, prompt="1, 2, 3, 4,", max_tokens=24, temperature=0
    )
    word = whole.choices[0].text[5]
    cut = client.completions.create(
        model=CHAT, prompt="1, 2, 3, 4,", max_tokens=24, temperature=0, stop=word
    )

    assert word not in cut.choices[0].text
    assert cut.choices[0].finish_reason == "stop"


def test_n_choices_are_returned(client: openai.OpenAI) -> None:
    answer = complete_chat(client, n=2, temperature=1)

    assert [choice.index for choice in answer.choices] == [0, 1]


def test_log_probabilities_are_returned(client: openai.OpenAI) -> None:
    answer = complete_chat(client, logprobs=True, top_logprobs=3)

    tokens = answer.choices[0].logprobs.content
    assert tokens
    assert all(token.logprob <= 0 for token in tokens)
    assert all(len(token.top_logprobs) == 3 for token in tokens)


def test_embeddings_are_returned(client: openai.OpenAI) -> None:
    data = client.embeddings.create(model=VECTORS, input=["a", "b"]).data

    assert [(one.index, len(one.embedding)) for one in data] == [(0, 384), (1, 384)]


def test_a_batch_of_a_file_is_answered(client: openai.OpenAI) -> None:
    body = {"model": CHAT, "messages": HELLO, "max_tokens": 4}
    url = "/v1/chat/completions"
    lines = [{"custom_id": str(i), "method": "POST", "url": url, "body": body} for i in range(4)]
    content = "\n".join(json.dumps(one) for one in lines).encode()

    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    end = time.monotonic() + 120
    while batch.status not in ("completed", "failed"):
        assert time.monotonic() < end, batch
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)

    assert batch.output_file_id is not None
    output = client.files.content(batch.output_file_id).text.splitlines()
    assert [json.loads(one)["custom_id"] for one in output] == ["0", "1", "2", "3"]
    for one in (file.id, batch.output_file_id):
        assert client.files.delete(one).deleted


def test_a_file_of_a_vector_store_is_found_by_its_meaning(client: openai.OpenAI) -> None:
    cats, markets = b"# Cats\n\nA cat sleeps for most of the day.", b"Shares fell by a third."
    store = client.vector_stores.create(name="tests")
    files = [
        client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=(name, content))
        for name, content in (("cats.md", cats), ("markets.txt", markets))
    ]

    def found() -> Any:
        page = client.vector_stores.search(store.id, query="How much do pets rest?")
        return page.data if len(page.data) == 2 else None

    hits = wait_until(found, 20, "both files in the search")
    client.vector_stores.delete(store.id)

    assert [file.status for file in files] == ["completed", "completed"]
    assert (hits[0].file_id, hits[0].filename) == (files[0].id, "cats.md")
    assert hits[0].score > hits[1].score
    with MilvusServer(db.collection(store.id, dim=2).server) as milvus:
        wait_until(lambda: store.id not in milvus.names(), 20, "the end of its collection")
    for file in files:
        assert client.files.delete(file.id).deleted


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError),
        ({"max_tokens": "many"}, openai.BadRequestError),
        ({"messages": []}, openai.BadRequestError),
        ({"extra_headers": {"authorization": "Bearer x"}}, openai.AuthenticationError),
        ({"messages": [{"role": "user", "content": "x " * 9000}]}, openai.BadRequestError),
    ],
)
def test_errors_are_the_clients_own_classes(
    client: openai.OpenAI, wanted: dict[str, Any], error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as caught:
        complete_chat(client, **wanted)

    assert caught.value.body is not None
    assert caught.value.message


# LangChain takes seconds to load, so only these tests import it.


def test_langchains_chat_model_invokes_streams_and_batches(where: dict[str, str]) -> None:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model=CHAT, max_tokens=8, max_retries=0, **where)

    whole = chat.invoke("Say hello.")
    pieces = [piece.text for piece in chat.stream("Say hello.")]
    several = chat.batch(["Say hello.", "Say bye."])

    assert whole.text
    assert whole.usage_metadata["output_tokens"] > 0
    assert len([piece for piece in pieces if piece]) > 1
    assert len(several) == 2


def test_langchains_structured_output_is_parsed(where: dict[str, str]) -> None:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model=CHAT, max_tokens=100, temperature=0, **where)

    city = chat.with_structured_output(City, method="json_schema").invoke("Tell me of Paris.")

    assert isinstance(city, City)


def test_langchains_embeddings_are_returned(where: dict[str, str]) -> None:
    """``check_embedding_ctx_length=False`` sends texts; else it sends tokens of OpenAI's models."""
    from langchain_openai import OpenAIEmbeddings

    vectors = OpenAIEmbeddings(
        model=VECTORS, check_embedding_ctx_length=False, max_retries=0, **where
    )

    documents = vectors.embed_documents(["a cat sleeps", "the market fell"])
    query = vectors.embed_query("a cat sleeps")

    assert [len(one) for one in documents] == [384, 384]
    assert query == pytest.approx(documents[0], abs=1e-4)

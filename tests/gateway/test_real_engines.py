"""The local stack's gateway and its real engines, called with OpenAI's own client."""

import base64
import math
import os
import signal
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
import pytest
from waiting import wait_until

from sage_flink.common import Settings

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]

HELLO: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    settings = Settings.load()
    key = settings.secret("gateway")
    with openai.OpenAI(
        base_url=f"{settings.gateway_url}/v1", api_key=key, max_retries=0, timeout=120
    ) as client:
        yield client


def embed(client: openai.OpenAI, texts: list[str], **more: Any) -> list[Any]:
    page = client.embeddings.create(model="minilm", input=texts, **more)
    assert [item.index for item in page.data] == list(range(len(texts)))
    return [item.embedding for item in page.data]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_models_lists_the_chat_and_the_embedding_model(client: openai.OpenAI) -> None:
    assert {"smollm2", "minilm"} <= {model.id for model in client.models.list()}


def test_a_chat_has_a_text_and_its_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smollm2", messages=HELLO, max_tokens=8)

    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 8


def test_a_streamed_chat_has_chunks_and_a_finish_reason(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="smollm2",
            messages=HELLO,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 1
    assert any(c.choices and c.choices[0].finish_reason for c in chunks)
    assert chunks[-1].usage is not None


def test_embeddings_are_unit_vectors_in_the_order_of_the_texts(client: openai.OpenAI) -> None:
    texts = ["a cat sleeps", "the stock market fell " * 30, "a kitten naps", "x"]
    cat, market, kitten, _ = vectors = embed(client, texts)

    assert {len(vector) for vector in vectors} == {384}
    assert all(math.isclose(cosine(v, v), 1, abs_tol=1e-4) for v in vectors)
    assert cosine(cat, kitten) > 0.5 > cosine(cat, market)


def test_base64_and_floats_are_equal_and_independent_of_the_batch(
    client: openai.OpenAI,
) -> None:
    floats = embed(client, ["one", "two"], encoding_format="float")
    packed = embed(client, ["two"], encoding_format="base64")[0]
    unpacked = struct.unpack("<384f", base64.b64decode(packed))

    assert unpacked == pytest.approx(floats[1], abs=1e-5)


def test_many_long_texts_are_truncated_and_answered(client: openai.OpenAI) -> None:
    assert len(embed(client, ["word " * 400] * 20 + ["short"])) == 21


@pytest.mark.parametrize("wrong", [[], ["a", ""], [["x"]], [1.5]])
def test_wrong_embedding_inputs_are_a_400(client: openai.OpenAI, wrong: Any) -> None:
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="minilm", input=wrong)


def test_dimensions_that_the_model_does_not_have_are_a_400_that_names_them(
    client: openai.OpenAI,
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="minilm", input="x", dimensions=16)

    assert caught.value.param == "dimensions"


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_longer_than_the_context_is_a_400(client: openai.OpenAI, stream: bool) -> None:
    long: Any = [{"role": "user", "content": "word " * 5000}]

    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="smollm2", messages=long, stream=stream)

    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": "many"},
        {"messages": [{"role": "user", "content": "x"}], "temperature": "hot"},
        {"messages": [{"role": "user", "content": "x"}], "n": 100},
        {"messages": [{"role": "", "content": "x\x00y"}], "max_tokens": 1},
        {"messages": [{"role": "user", "content": ""}], "max_tokens": 1},
    ],
)
def test_odd_chats_are_answered_or_refused_but_never_break_anything(
    client: openai.OpenAI, body: dict[str, Any]
) -> None:
    url = f"{client.base_url}chat/completions"
    headers = {"Authorization": f"Bearer {client.api_key}"}
    answer = httpx.post(
        url, json={"model": "smollm2", **body}, headers=headers, timeout=60, verify=False
    )

    assert answer.status_code in (200, 400)


def test_an_unknown_model_is_a_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=HELLO)

    assert caught.value.code == "model_not_found"


def test_requests_without_the_key_are_refused(client: openai.OpenAI) -> None:
    with (
        openai.OpenAI(base_url=client.base_url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def own_engine(url: str, script: str) -> psutil.Process:
    """The engine that is a child of the gateway listening at ``url``, and of no other gateway."""
    port = httpx.URL(url).port
    owners = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    children = [c for pid in owners if pid for c in psutil.Process(pid).children()]
    return next(c for c in children if any(part.endswith(script) for part in c.cmdline()))


@pytest.mark.alone
@pytest.mark.timeout(180)
def test_a_killed_engine_is_back_and_serves_again(client: openai.OpenAI) -> None:
    url = Settings.load().gateway_url
    engine = own_engine(url, "serve_onnx.py")
    os.kill(engine.pid, signal.SIGKILL)
    engine.wait(60)
    wait_until(lambda: is_whole(url) and engine_back(url, engine.pid), 120, "another engine")

    assert len(embed(client, ["back again"])) == 1


def is_whole(url: str) -> bool:
    return httpx.get(f"{url}/health", verify=False).status_code == 200


def engine_back(url: str, old: int) -> bool:
    try:
        return own_engine(url, "serve_onnx.py").pid != old
    except StopIteration:
        return False

"""Pipelines served as models: answers, streams, failures, and their calls inside the process."""

import asyncio
from typing import Any

import openai
import orjson
import pytest

from sage_flink.common import PoolError, Rejected, Settings
from sage_flink.common.openai import pool_error
from sage_flink.flow import Pool
from sage_gateway.pipelines.pool_client import PoolClient
from sage_gateway.pipelines.served_pipeline import OnDelta, PipelineReply
from sage_gateway.requests.request import Request

KEY = "sk-sage-test"
SOURCES = [{"id": "docs/1", "score": 0.9}]


class Echo:
    """A pipeline that sends one request to the pool and follows the script in the question."""

    def __init__(self, _: Settings) -> None:
        self.cancelled = 0

    async def answer(
        self, body: dict[str, Any], pool: Pool, on_delta: OnDelta | None
    ) -> PipelineReply:
        question = body["messages"][-1]["content"]
        if question == "reject":
            raise Rejected("the question is not one; ask another")
        if question == "bug":
            raise ZeroDivisionError("a secret")
        try:
            text = await (self.answer_whole if on_delta is None else self.answer_streamed)(
                question, pool, on_delta
            )
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return PipelineReply(text, SOURCES, {"prompt_tokens": 3, "completion_tokens": 2})

    async def answer_whole(self, question: str, pool: Pool, _: OnDelta | None) -> str:
        body = orjson.dumps({"model": "talk", "messages": [{"role": "user", "content": question}]})
        status, answer, _ = await pool.post("/v1/chat/completions", body, {})
        if status != 200:
            raise pool_error(answer, status)
        text: str = orjson.loads(answer)["choices"][0]["message"]["content"]
        return text

    async def answer_streamed(self, question: str, pool: Pool, on_delta: OnDelta | None) -> str:
        messages = [{"role": "user", "content": question}]
        body = orjson.dumps({"model": "talk", "stream": True, "messages": messages})
        text = ""
        assert on_delta is not None
        async for event in pool.stream("/v1/chat/completions", body, {}):
            for line in event.split(b"\n\n"):
                if line.startswith(b'data: {"error"'):
                    raise PoolError("the engine broke off", status=502)
                if line.startswith(b"data: {"):
                    piece = orjson.loads(line[6:])["choices"][0]["delta"]["content"]
                    text += piece
                    await on_delta(piece)
        return text


class Often(Echo):
    """Sends sixty requests, and reports no usage of its own."""

    async def answer(
        self, body: dict[str, Any], pool: Pool, on_delta: OnDelta | None
    ) -> PipelineReply:
        text = ""
        for _ in range(60):
            text = await self.answer_whole(body["messages"][-1]["content"], pool, None)
        return PipelineReply(text)


@pytest.fixture(scope="module")
def gateway(start: Any, fake: Any) -> Any:
    with start({"talk": fake()}, factories={"rag": Echo}) as gateway:
        yield gateway


def test_a_pipeline_is_listed_and_answers_like_a_model(gateway: Any) -> None:
    listed = [model["id"] for model in gateway.client.get("/v1/models").json()["data"]]
    page = gateway.chat("echo from afar", model="rag").json()

    assert listed == ["talk", "rag"]
    assert page["choices"][0]["message"] == {"role": "assistant", "content": "from afar"}
    assert page["choices"][0]["finish_reason"] == "stop"
    assert page["sources"] == SOURCES
    assert page["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_the_stream_of_a_pipeline_ends_with_sources_and_usage(gateway: Any) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY) as client:
        chunks = list(
            client.chat.completions.create(
                model="rag",
                messages=[{"role": "user", "content": "echo from afar"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )

    texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(texts) == "from afar "
    last, usage = chunks[-2:]
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra == {"sources": SOURCES}
    assert usage.usage is not None
    assert usage.usage.total_tokens == 5


@pytest.mark.parametrize(
    ("question", "status"), [("reject", 400), ("overflow", 400), ("status 500", 502), ("bug", 500)]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_in_a_pipeline_has_the_right_status(
    gateway: Any, question: str, status: int, stream: bool
) -> None:
    answer = gateway.chat(question, model="rag", stream=stream)

    assert answer.status_code == status
    assert "secret" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_longer_than_the_context_has_openais_code(gateway: Any, stream: bool) -> None:
    answer = gateway.chat("overflow", model="rag", stream=stream)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["param"] == "messages"


def test_a_failure_after_the_first_delta_ends_the_stream_with_an_error_event(gateway: Any) -> None:
    events = gateway.chat("cut 2", model="rag", stream=True).text.strip().split("\n\n")

    assert "word" in events[1]
    assert events[-1].startswith('data: {"error":')


def test_a_disconnect_cancels_the_pipeline_and_its_calls(gateway: Any) -> None:
    before = gateway.engine_stats()["hung_up"]
    body = {"model": "rag", "stream": True, "messages": [{"role": "user", "content": "slow"}]}
    with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_bytes())

    gateway.until(lambda: gateway.gateway.inference.pipelines.by_name["rag"].cancelled == 1, 10.0)
    gateway.until(lambda: gateway.engine_stats()["hung_up"] == before + 1, 10.0)


def test_a_pipeline_has_no_embeddings_and_cannot_call_itself(gateway: Any) -> None:
    embedding = gateway.client.post("/v1/embeddings", json={"model": "rag", "input": "x"})
    body = orjson.dumps({"model": "rag", "messages": [{"role": "user", "content": "hi"}]})
    pipelines = gateway.gateway.inference.pipelines
    pool = PoolClient(pipelines._inference, Request())
    inner = pool.post("/v1/chat/completions", body, {})
    status, *_ = asyncio.run_coroutine_threadsafe(inner, gateway.loop).result(5)

    assert embedding.status_code == 400
    assert status == 400


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_a_pipeline_use_the_replica_of_the_clients_session(
    start: Any, fake: Any, stream: bool
) -> None:
    model = fake(replicas=2, routing="session")
    with start({"talk": model}, factories={"rag": Echo}) as gateway:
        gateway.until(lambda: gateway.pool.models["talk"].ready() == 2)
        messages = [{"role": "user", "content": "echo hi"}]
        body = {"model": "rag", "messages": messages, "stream": stream}
        for _ in range(6):
            session = {"x-session-id": "s1"}
            gateway.client.post("/v1/chat/completions", json=body, headers=session)

        asked = sorted(gateway.engine_stats(replica=number)["requests"] for number in range(2))

    assert asked == [0, 6]


def test_the_usage_and_the_charge_of_a_pipeline_are_those_of_all_its_calls(
    start: Any, fake: Any
) -> None:
    limits = {"tokens_per_month": 10**9}
    with start({"talk": fake()}, factories={"rag": Often}) as gateway:
        key = gateway.client.post("/pool/keys", json={"tenant": "acme", "limits": limits}).json()
        body = {"model": "rag", "messages": [{"role": "user", "content": "echo hi"}]}
        headers = {"authorization": f"Bearer {key['key']}"}
        page = gateway.client.post(
            "/v1/chat/completions", json={**body, "max_tokens": 1}, headers=headers
        ).json()
        usage = gateway.client.get("/v1/usage").json()["data"]

    [line] = [one for one in usage if one["key"] == key["id"]]
    assert page["usage"] == {"prompt_tokens": 180, "completion_tokens": 120, "total_tokens": 300}
    assert (line["prompt_tokens"], line["completion_tokens"]) == (180, 120)


@pytest.mark.parametrize("stream", [False, True])
def test_the_chats_of_a_pipeline_have_the_clients_options_and_limit(
    gateway: Any, stream: bool
) -> None:
    options = {
        "temperature": 0.5,
        "top_p": 0.5,
        "seed": 7,
        "stop": ["x"],
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
    }
    limit = {"max_completion_tokens": 9}
    answer = gateway.chat("echo hi", model="rag", stream=stream, **options, **limit)

    assert answer.status_code == 200
    sent = gateway.engine_stats()["last"]
    assert {name: sent[name] for name in options} == options
    assert sent["max_tokens"] == 9


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("n_cmpl", 2),
        ("best_of", 2),
        ("n_predict", 5),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "none"),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("top_logprobs", 2),
        ("grammar", 'root ::= "x"'),
        ("logit_bias", {"50": -100}),
        ("top_k", 5),
        ("functions", [{"name": "f"}]),
        ("reasoning_effort", "low"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_field_that_no_pipeline_takes_is_a_400_that_names_it(
    gateway: Any, field: str, value: Any, stream: bool
) -> None:
    before = gateway.engine_stats()["requests"]
    answer = gateway.chat("echo hi", model="rag", stream=stream, **{field: value})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert gateway.engine_stats()["requests"] == before


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"top_k": 5}, "top_k"),
    ],
)
def test_an_error_of_a_response_names_the_field_of_the_response(
    gateway: Any, fields: dict[str, Any], param: str
) -> None:
    body = {"model": "rag", "input": "echo hi", **fields}
    error = gateway.client.post("/v1/responses", json=body).json()["error"]

    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"].startswith(f"{param}: rag is a pipeline")


def test_a_pipeline_takes_fields_with_their_defaults(gateway: Any) -> None:
    assert (
        gateway.chat("echo hi", model="rag", n=1, logprobs=False, tools=[], user="me").status_code
        == 200
    )

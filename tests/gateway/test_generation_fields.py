"""Fields of a generation that are refused before an engine is asked, and their names in errors."""

from typing import Any

import httpx
import orjson
import pytest

from sage_gateway.openai.decoding import decode
from sage_gateway.openai.error_table import status_of
from sage_gateway.openai.request_size import choices, prompts
from sage_gateway.openai.routes import decode_payload
from sage_gateway.openai.schema import COMPLETIONS_MAX, CompletionRequest
from sage_gateway.requests.request import read_request

CHAT, COMPLETION, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
TEXTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "echo hi"}]},
    COMPLETION: {"prompt": "hi"},
}
SLOTS = COMPLETIONS_MAX + 2


@pytest.fixture(scope="module")
def gateway(start: Any, fake: Any) -> Any:
    models = {"talk": fake(), "wide": fake(slots=SLOTS), "vectors": fake("embedding")}
    with start(models) as gateway:
        yield gateway


def fault(path: str, **fields: Any) -> tuple[int, str | None]:
    found = read_request(path, {}, orjson.dumps({"model": "m", **TEXTS[path], **fields})).invalid
    assert found is not None
    return status_of(found), found.param


FORMATS: list[tuple[Any, str]] = [
    ({"type": "zzz"}, "response_format.type"),
    ({"type": None}, "response_format.type"),
    ({}, "response_format.type"),
    ("json", "response_format"),
    ({"type": "json_schema"}, "response_format.json_schema"),
    ({"type": "json_schema", "json_schema": None}, "response_format.json_schema"),
    ({"type": "json_schema", "json_schema": {"name": "x"}}, "response_format.json_schema.schema"),
    (
        {"type": "json_schema", "json_schema": {"name": "x", "schema": "y"}},
        "response_format.json_schema.schema",
    ),
]


@pytest.mark.parametrize("path", TEXTS)
@pytest.mark.parametrize(("wanted", "param"), FORMATS)
def test_a_form_of_the_answer_that_cannot_be_kept_is_a_400(
    path: str, wanted: Any, param: str
) -> None:
    assert fault(path, response_format=wanted) == (400, param)


@pytest.mark.parametrize("path", TEXTS)
@pytest.mark.parametrize(
    "wanted",
    [
        None,
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_object", "schema": {"type": "object"}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}},
        {"type": "structural_tag", "structures": [], "triggers": ["<a"]},
    ],
)
def test_forms_of_openai_and_vllm_reach_the_engine(gateway: Any, path: str, wanted: Any) -> None:
    body = {"model": "talk", **TEXTS[path], "response_format": wanted}
    answer: httpx.Response = gateway.client.post(path, json=body)

    assert answer.status_code == 200, answer.text
    assert gateway.engine_stats()["last"]["response_format"] == wanted


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"type": "zzz"}, "text.format.type"),
        ({}, "text.format.type"),
        ("json", "text.format"),
        ({"type": "json_schema", "name": "x"}, "text.format.schema"),
        ({"type": "json_schema", "name": "x", "schema": None}, "text.format.schema"),
    ],
)
def test_the_form_of_a_response_is_refused_under_its_own_name(
    gateway: Any, wanted: Any, param: str
) -> None:
    body = {"model": "talk", "input": "echo hi", "text": {"format": wanted}}
    answer = gateway.client.post(RESPONSES, json=body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


BIASES = [
    {"not_a_token_id": 50},
    {"-5": 1},
    {"1.5": 1},
    {"": 1},
    {"1": "not_a_number"},
    {"1": None},
    {"1": True},
    {"1": 100.5},
    {"2": 1, "1": -101},
    {"9" * 11: 1},
    [[1, 2]],
    "x",
]


@pytest.mark.parametrize("path", TEXTS)
@pytest.mark.parametrize("bias", BIASES)
def test_a_wrong_bias_of_a_token_is_a_400(path: str, bias: Any) -> None:
    assert fault(path, logit_bias=bias) == (400, "logit_bias")


def test_the_tokens_at_fault_are_named() -> None:
    body = {"model": "m", "prompt": "a", "logit_bias": {"5": 1, "hello": 2, "-1": 3}}
    found = read_request(COMPLETION, {}, orjson.dumps(body)).invalid

    assert str(found) == ("logit_bias: each name must be the number of a token, got 'hello', '-1'")


@pytest.mark.parametrize("bias", BIASES)
def test_a_wrong_bias_of_a_response_is_a_400(gateway: Any, bias: Any) -> None:
    body = {"model": "talk", "input": "echo hi", "logit_bias": bias}
    answer = gateway.client.post(RESPONSES, json=body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "logit_bias")


@pytest.mark.parametrize("bias", [None, {}, {"5": 1}, {"0": -100, "49151": 100.0}])
@pytest.mark.parametrize("path", TEXTS)
def test_biases_of_token_numbers_are_taken(path: str, bias: Any) -> None:
    body = orjson.dumps({"model": "m", **TEXTS[path], "logit_bias": bias})

    assert decode_payload(path, body)


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"prompt": ["a"] * COMPLETIONS_MAX}, COMPLETIONS_MAX),
        ({"prompt": ["a"] * 64, "n": 2}, COMPLETIONS_MAX),
        ({"prompt": [1] * 2000}, 1),
        ({"prompt": ["a"] + [1] * 2000}, 1),
    ],
)
def test_as_many_completions_as_openai_gives_are_made(
    gateway: Any, fields: dict[str, Any], count: int
) -> None:
    answer = gateway.client.post(COMPLETION, json={"model": "talk", **fields})

    assert answer.status_code == 200, answer.text
    request = decode(orjson.dumps({"model": "m", **fields}), CompletionRequest)
    assert prompts(request) * choices(request) == count


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ["a"] * (COMPLETIONS_MAX + 1)},
        {"prompt": [[1]] * 2000},
        {"prompt": ["a", "b"], "n": COMPLETIONS_MAX},
        {"prompt": ["a"] * 65, "best_of": 2},
    ],
)
def test_more_completions_of_one_request_are_refused(
    gateway: Any, fields: dict[str, Any], stream: bool
) -> None:
    before = gateway.engine_stats()["requests"]
    answer = gateway.client.post(COMPLETION, json={"model": "talk", "stream": stream, **fields})

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "prompt")
    assert f"at most {COMPLETIONS_MAX} completions" in error["message"]
    assert gateway.engine_stats()["requests"] == before


def test_a_model_with_more_slots_makes_as_many_completions(gateway: Any) -> None:
    def status(count: int) -> int:
        body = {"model": "wide", "prompt": ["a"] * count}
        found: int = gateway.client.post(COMPLETION, json=body).status_code
        return found

    assert (status(SLOTS), status(SLOTS + 1)) == (200, 400)


def test_embeddings_are_made_of_more_texts_than_completions(gateway: Any) -> None:
    body = {"model": "vectors", "input": ["a"] * 2048}
    answer = gateway.client.post("/v1/embeddings", json=body)

    assert len(answer.json()["data"]) == 2048

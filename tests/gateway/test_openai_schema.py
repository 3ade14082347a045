"""Reading requests and answers by their bytes."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.errors import GatewayError
from sage_gateway.openai.decoding import check_chat, decode
from sage_gateway.openai.engine_answer import engine_error, tokens
from sage_gateway.openai.error_table import status_of
from sage_gateway.openai.routes import MODEL_ROUTES, decode_payload
from sage_gateway.openai.schema import ChatRequest


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"messages": [{"role": "user"}]}', "model"),
        (b'{"model": "m"}', "messages"),
        (b'{"model": "m", "messages": []}', "messages"),
        (b'{"model": 5, "messages": []}', "model"),
        (b'{"model": "m", "messages": [{}]}', "messages[0].role"),
        (b'{"model": "m", "messages": [{"role": "u"}], "seed": "1"}', "seed"),
        (b'{"model": "m", "messages": [{"role": "u"}], "stop": [1]}', "stop[0]"),
        (b'{"model": "m", "messages": [{"role": "u"}], "tools": "x"}', "tools"),
        (
            b'{"model": "m", "messages": [{"role": "u"}], "tools": [{"type": "function"}]}',
            "tools[0].function",
        ),
        (
            b'{"model": "m", "messages": [{"role": "u"}], "tools": [{"type": "custom"}]}',
            "tools[0].type",
        ),
        (
            b'{"model": "m", "messages": [{"role": "u"}],'
            b' "tools": [{"type": "function", "function": {}}]}',
            "tools[0].function.name",
        ),
        (b'{"model": "m", "messages": [{"role": 1}]}', "messages[0].role"),
        (b"{", None),
        (b"", None),
        (b"[]", None),
        (b'{"model": "\xff"}', None),
        (b"nul\x00", None),
    ],
)
def test_a_wrong_request_is_a_400_that_names_the_field(body: bytes, param: str | None) -> None:
    with pytest.raises(GatewayError) as caught:
        decode(body, ChatRequest)

    assert status_of(caught.value) == 400
    assert caught.value.param == param


@given(st.binary(max_size=200))
def test_invalid_bytes_raise_no_other_error(body: bytes) -> None:
    with pytest.raises(GatewayError, match=r"."):
        decode(body, ChatRequest)


def test_an_address_to_fetch_is_refused() -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1"}}
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}

    with pytest.raises(GatewayError, match="only 'text' is taken"):
        check_chat(decode(orjson.dumps(body), ChatRequest))


TOOLS = [{"type": "function", "function": {"name": "weather"}}]
NAMED = {"type": "function", "function": {"name": "weather"}}
OTHER = {"type": "function", "function": {"name": "time"}}


@pytest.mark.parametrize(
    ("choice", "tools", "param"),
    [
        ("required", None, "tool_choice"),
        ("required", [], "tool_choice"),
        ("any", TOOLS, "tool_choice"),
        ({}, TOOLS, "tool_choice.type"),
        ({"type": "function"}, TOOLS, "tool_choice.function"),
        (NAMED, None, "tool_choice.function.name"),
        (OTHER, TOOLS, "tool_choice.function.name"),
    ],
)
def test_the_choice_of_a_tool_that_is_missing_is_a_400(
    choice: object, tools: object, param: str
) -> None:
    body = {"model": "m", "messages": [{"role": "user"}], "tool_choice": choice, "tools": tools}

    with pytest.raises(GatewayError) as caught:
        decode_payload("/v1/chat/completions", orjson.dumps(body))

    assert (status_of(caught.value), caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        ("none", None),
        ("auto", None),
        ("auto", []),
        (None, TOOLS),
        ("required", TOOLS),
        (NAMED, TOOLS),
    ],
)
def test_a_choice_that_the_tools_can_keep_is_taken(choice: object, tools: object) -> None:
    body = {"model": "m", "messages": [{"role": "user"}], "tool_choice": choice, "tools": tools}

    assert decode_payload("/v1/chat/completions", orjson.dumps(body))


@pytest.mark.parametrize("prompt", [None, True, 5, 1.5, [], [None], [True], ["a", None]])
def test_a_prompt_that_is_neither_texts_nor_tokens_is_a_400(prompt: object) -> None:
    body = orjson.dumps({"model": "m", "prompt": prompt})

    with pytest.raises(GatewayError) as caught:
        decode_payload("/v1/completions", body)

    assert (status_of(caught.value), caught.value.param) == (400, "prompt")


@pytest.mark.parametrize(
    "prompt", ["", "a", ["a", "b"], [1, 2], [[1], [2]], ["a", [2], 3], [{"prompt_string": "a"}]]
)
def test_texts_and_tokens_are_prompts(prompt: object) -> None:
    assert decode_payload("/v1/completions", orjson.dumps({"model": "m", "prompt": prompt}))


CHAT = {"messages": [{"role": "user", "content": "x"}], "logprobs": True}
ALTERNATIVES = [
    ("/v1/chat/completions", "top_logprobs", CHAT),
    ("/v1/chat/completions", "n_probs", CHAT),
    ("/v1/completions", "logprobs", {"prompt": "x"}),
    ("/v1/completions", "n_probs", {"prompt": "x"}),
    ("/v1/responses", "top_logprobs", {"input": "x"}),
]


@pytest.mark.parametrize(("path", "field", "rest"), ALTERNATIVES)
def test_more_than_20_log_probabilities_a_token_are_a_400(
    path: str, field: str, rest: dict[str, object]
) -> None:
    assert decode_payload(path, orjson.dumps({"model": "m", **rest, field: 20}))

    for count in (21, 49_152, -1):
        with pytest.raises(GatewayError) as caught:
            decode_payload(path, orjson.dumps({"model": "m", **rest, field: count}))
        assert (status_of(caught.value), caught.value.param) == (400, field)


@pytest.mark.parametrize("seed", [-(1 << 63) - 1, 1 << 63, 1 << 64, 10**30])
def test_a_seed_beyond_64_bits_is_a_400(seed: int) -> None:
    body = b'{"model": "m", "prompt": "x", "seed": %d}'

    for last in (-(1 << 63), (1 << 63) - 1):
        assert decode_payload("/v1/completions", body % last)
    with pytest.raises(GatewayError) as caught:
        decode_payload("/v1/completions", body % seed)
    assert (status_of(caught.value), caught.value.param) == (400, "seed")


def test_tokens_are_those_of_usage_and_no_text_can_pass_for_it() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    lie = '"usage":{"prompt_tokens":999}'

    assert tokens(orjson.dumps({"text": lie})) == {}
    assert tokens(orjson.dumps({"usage": usage, "text": lie})) == {"in": 7, "out": 2}
    assert tokens(orjson.dumps({"text": lie, "usage": usage})) == {"in": 7, "out": 2}


@pytest.mark.parametrize(
    ("status", "body", "mapped", "code"),
    [
        (
            400,
            b'{"error":{"type":"exceed_context_size_error","message":"m"}}',
            400,
            "context_length_exceeded",
        ),
        (
            400,
            b'{"message":"This model\'s maximum context length is 9"}',
            400,
            "context_length_exceeded",
        ),
        (
            500,
            b'{"error":{"message":"input is too large to process"}}',
            400,
            "context_length_exceeded",
        ),
        (422, b'{"error":{"message":"m"}}', 400, None),
        (500, b'{"error":{"message":"Failed to parse messages: type must be string"}}', 400, None),
        (500, b'{"error":{"message":"Unknown reasoning format: x"}}', 400, None),
        (500, b'{"error":{"message":"Failed to parse input at pos 3"}}', 502, "engine_error"),
        (429, b"{}", 429, "rate_limit_exceeded"),
        (503, b'{"error":{"message":"Loading model"}}', 503, "not_ready"),
        (500, b"<html>", 502, "engine_error"),
        (500, b"[]", 502, "engine_error"),
        (301, b'{"error":"text"}', 502, "engine_error"),
    ],
)
def test_an_engines_error_becomes_one_of_ours(
    status: int, body: bytes, mapped: int, code: str | None
) -> None:
    error = engine_error(status, body, "m", "/v1/chat/completions")

    assert (status_of(error), error.code) == (mapped, code)


@pytest.mark.parametrize(
    ("error", "param"),
    [
        ({"message": "m", "param": "dimensions"}, "dimensions"),
        ({"message": "m", "param": None}, None),
        ({"message": "m", "param": 5}, None),
        ({"message": "Field 'top_k': type must be number"}, "top_k"),
        ({"message": "m"}, None),
        ("m", None),
    ],
)
def test_the_field_that_an_engine_objects_to_is_named(error: object, param: str | None) -> None:
    found = engine_error(400, orjson.dumps({"error": error}), "m", "/v1/embeddings")

    assert found.param == param
    assert str(found) == (error["message"] if isinstance(error, dict) else error)


@pytest.mark.parametrize("path", MODEL_ROUTES)
def test_the_field_with_the_text_that_is_too_long_is_named(path: str) -> None:
    body = b'{"error":{"type":"exceed_context_size_error","message":"m"}}'
    found = engine_error(400, body, "m", path)

    assert found.param is not None
    assert found.param in MODEL_ROUTES[path].__struct_fields__

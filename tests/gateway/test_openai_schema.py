"""Reading requests and answers by their bytes."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.errors import GatewayError
from sage_gateway.openai.decoding import check_chat, decode
from sage_gateway.openai.engine_answer import engine_error, tokens
from sage_gateway.openai.error_table import status_of
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
    error = engine_error(status, body, "m")

    assert (status_of(error), error.code) == (mapped, code)

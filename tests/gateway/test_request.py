"""A request is read once: its headers, its body, its stream."""

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.flow.call_options import PRIORITIES
from sage_gateway.errors import InvalidRequest
from sage_gateway.openai.schema import ChatRequest
from sage_gateway.requests.request import (
    BACKGROUND,
    NORMAL,
    REQUEST_ID_CHARS_MAX,
    Headers,
    Request,
    read_request,
)
from sage_gateway.requests.response import StreamFacts

LOW = PRIORITIES.index("low")
CHAT = "/v1/chat/completions"
BODY = orjson.dumps({"model": "talk", "messages": [{"role": "user", "content": "hi"}]})


def read(headers: Headers, body: bytes = BODY) -> Request:
    return read_request(CHAT, headers, body)


@pytest.mark.parametrize(
    ("headers", "tenant", "priority"),
    [
        ({}, "", NORMAL),
        ({b"x-sage-tenant": b"acme", b"x-sage-priority": b"low"}, "acme", LOW),
        ({b"x-sage-priority": b"interactive", b"x-background": b"1"}, "", BACKGROUND),
        ({b"x-background": b"0", b"x-sage-priority": b"no such"}, "", NORMAL),
    ],
)
def test_scheduling_headers_are_those_that_a_flink_call_sends(
    headers: Headers, tenant: str, priority: int
) -> None:
    found = read(headers)

    assert (found.tenant, found.priority) == (tenant, priority)
    assert found.background == (priority == BACKGROUND)


def test_the_tenant_of_the_key_overrides_the_header() -> None:
    found = read_request(CHAT, {b"x-sage-tenant": b"claimed"}, BODY, tenant="known")

    assert found.tenant == "known"


def test_a_deadline_is_milliseconds_of_the_epoch_and_anything_else_is_refused() -> None:
    assert read({b"x-sage-deadline-ms": b"1500"}).deadline_s == 1.5
    assert read({b"x-sage-deadline-ms": b""}).deadline_s == math.inf
    for odd in (b"-1", b"soon", b"1.5", b"9" * 16):
        invalid = read({b"x-sage-deadline-ms": odd}).invalid
        assert invalid is not None
        assert invalid.param == "x-sage-deadline-ms"


NAMES = [b"x-sage-tenant", b"x-sage-priority", b"x-sage-deadline-ms", b"x-sage-job"]


@given(st.dictionaries(st.sampled_from([*NAMES, b"x-request-id", b"x-background"]), st.binary()))
def test_any_scheduling_header_is_read_or_named_in_the_error(headers: Headers) -> None:
    found = read(headers)

    if found.invalid is not None:
        assert found.invalid.code == "invalid_header"
        assert (found.invalid.param or "").encode() in headers
    assert found.priority in range(len(PRIORITIES))
    assert len(found.request_id) <= REQUEST_ID_CHARS_MAX
    assert found.request_id.isprintable()


def test_an_unreadable_body_is_kept_as_its_error() -> None:
    found = read({}, b'{"model": "talk"}')

    assert found.payload is None
    assert isinstance(found.invalid, InvalidRequest)
    assert found.invalid.param == "messages"


def test_a_cache_header_of_another_form_makes_the_request_invalid() -> None:
    found = read({b"x-sage-cache": b"forever"})

    assert found.invalid is not None
    assert found.invalid.code == "invalid_header"
    assert read({b"x-sage-cache": b"ttl=60"}).cache_ttl_s == 60


def test_a_renamed_body_differs_in_its_model_only() -> None:
    found = read({}, BODY)

    assert isinstance(found.payload, ChatRequest)
    renamed = orjson.loads(found.body_for("upstream"))
    assert renamed == orjson.loads(BODY) | {"model": "upstream"}


@pytest.mark.parametrize(
    ("chunk", "pieces"),
    [
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n', 0),
        (b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n' * 3, 3),
        (b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\n', 1),
        (b'data: {"choices":[{"text":"\\"content\\":\\"x"}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{"}}]}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{}}],"usage":{"completion_tokens":7}}\n\n', 0),
    ],
)
def test_the_pieces_of_text_in_a_stream_are_counted(chunk: bytes, pieces: int) -> None:
    facts = StreamFacts()
    facts.scan(chunk)

    assert facts.deltas == pieces

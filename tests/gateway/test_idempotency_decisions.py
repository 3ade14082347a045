"""Idempotency decisions: the scope of an id, and the next step of a call."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.idempotency.decisions import (
    IdempotencyKey,
    NextStep,
    idempotency_key,
    may_detach,
    step_for,
)
from sage_gateway.idempotency.store_protocol import RecordedAnswer, RunningCall
from sage_gateway.openai.completeness import has_error_event, is_complete

HEX = "0123456789abcdef" * 2
UUID = "01234567-89ab-cdef-0123-456789abcdef"
CHAT = "/v1/chat/completions"

some = st.binary(max_size=12)
scopes = st.tuples(some, some, st.sampled_from([CHAT, "/v1/completions"]), some, st.booleans())


def key_of(
    path: str = CHAT,
    body: bytes = b"{}",
    *,
    key: bytes = b"Bearer k",
    tenant: bytes = b"",
    **headers: str,
) -> IdempotencyKey | None:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return idempotency_key(path, {b"authorization": key, b"x-sage-tenant": tenant, **named}, body)


@given(st.lists(scopes, min_size=2, max_size=2, unique=True))
def test_calls_that_differ_in_api_key_tenant_path_or_id_never_share_an_answer(
    two: list[tuple[bytes, bytes, str, bytes, bool]],
) -> None:
    keys = [
        idempotency_key(
            path,
            {
                b"authorization": key,
                b"x-sage-tenant": tenant,
                b"idempotency-key": b"i" + name + (b"+" if more else b""),
            },
            b"",
        )
        for key, tenant, path, name, more in two
    ]
    ids = {(k, t, p, n + (b"+" if m else b"")) for k, t, p, n, m in two}

    assert len({k.name for k in keys if k}) == len(ids)


@given(some, some)
def test_an_idempotency_key_names_one_request_for_any_body(one: bytes, other: bytes) -> None:
    first, second = key_of(body=one, idempotency_key="k"), key_of(body=other, idempotency_key="k")

    assert first is not None
    assert second is not None
    assert first.name == second.name
    assert (first.digest == second.digest) == (one == other)


@given(some, some)
def test_a_request_id_with_another_body_names_another_call(one: bytes, other: bytes) -> None:
    def key_with_body(body: bytes) -> IdempotencyKey | None:
        return key_of(body=body, x_request_id=HEX, idempotency_key=HEX)

    assert (key_with_body(one) == key_with_body(other)) == (one == other)


@pytest.mark.parametrize("name", [HEX, HEX.upper(), UUID])
def test_a_unique_request_id_makes_a_call_idempotent(name: str) -> None:
    assert key_of(x_request_id=name) is not None


@pytest.mark.parametrize("name", ["", "r-1", "test", HEX[:-1], HEX + "0", UUID + "\n", "-" * 36])
def test_a_request_id_that_may_be_a_constant_is_for_the_logs_only(name: str) -> None:
    assert key_of(x_request_id=name) is None
    assert key_of(x_request_id=name, idempotency_key="k") is not None


def test_a_call_without_an_id_has_no_idempotency_key() -> None:
    assert key_of() is None


@given(
    st.sampled_from([None, RunningCall(b"a"), RunningCall(b"b"), RecordedAnswer(b"a", False, b"")])
)
def test_an_answer_is_replayed_for_its_own_body_only(
    known: RecordedAnswer | RunningCall | None,
) -> None:
    step = step_for(IdempotencyKey(b"k", b"a"), known)

    if known is None:
        assert step is NextStep.DISPATCH
    elif known.digest == b"a":
        assert step is (NextStep.REPLAY if isinstance(known, RecordedAnswer) else NextStep.WAIT)
    else:
        assert step is NextStep.REFUSE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"choices": [{"ind',
        b'{"choices": []}',
        b'{"data": null}',
        b'{"error": {"message": "no"}}',
        b'{"error": "no", "choices": [1]}',
        b"[1]",
        b"\xff",
    ],
)
def test_an_incomplete_200_is_not_recorded(body: bytes) -> None:
    assert not is_complete(body, bytes_max=1000)


@given(st.sampled_from(["choices", "data", "results"]), st.text())
def test_a_complete_answer_is_recorded_up_to_its_size_limit(name: str, text: str) -> None:
    body = orjson.dumps({"id": "1", name: [{"text": text}], "error": None})

    assert is_complete(body, bytes_max=len(body))
    assert not is_complete(body, bytes_max=len(body) - 1)


@given(st.text(), st.booleans())
def test_an_error_event_breaks_a_stream_but_a_text_about_one_does_not(
    text: str, late: bool
) -> None:
    event = b"data: " + orjson.dumps({"delta": {"content": text + '\n\ndata: {"error"'}}) + b"\n\n"
    error = b'data: {"error": {"message": "lost"}}\n\n'

    assert not has_error_event(event)
    assert has_error_event(event + error if late else error)


@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from([0.0, 30.0]), st.booleans())
def test_detached_calls_never_exceed_their_limit(
    detached: int, most: int, grace_s: float, recordable: bool
) -> None:
    detaches = may_detach(
        detached=detached, detached_max=most, grace_s=grace_s, recordable=recordable
    )

    assert detaches == (detached < most and grace_s > 0 and recordable)

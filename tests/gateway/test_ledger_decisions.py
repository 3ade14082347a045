"""What the ledger decides, whatever comes."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.idempotency.decisions import (
    Step,
    Ticket,
    goes_on,
    issued,
    step_for,
)
from sage_gateway.idempotency.store_protocol import Recorded, Running
from sage_gateway.openai.completeness import has_error_event, is_complete

HEX = "0123456789abcdef" * 2
UUID = "01234567-89ab-cdef-0123-456789abcdef"
CHAT = "/v1/chat/completions"

some = st.binary(max_size=12)
scopes = st.tuples(some, some, st.sampled_from([CHAT, "/v1/completions"]), some, st.booleans())


def ticket(
    path: str = CHAT,
    body: bytes = b"{}",
    *,
    key: bytes = b"Bearer k",
    tenant: bytes = b"",
    **headers: str,
) -> Ticket | None:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return issued(path, {b"authorization": key, b"x-sage-tenant": tenant, **named}, body)


@given(st.lists(scopes, min_size=2, max_size=2, unique=True))
def test_no_two_of_key_tenant_path_and_id_share_an_answer(
    two: list[tuple[bytes, bytes, str, bytes, bool]],
) -> None:
    tickets = [
        issued(
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

    assert len({t.key for t in tickets if t}) == len(ids)


@given(some, some)
def test_an_idempotency_key_names_one_request_whatever_its_body(one: bytes, other: bytes) -> None:
    first, second = ticket(body=one, idempotency_key="k"), ticket(body=other, idempotency_key="k")

    assert first is not None
    assert second is not None
    assert first.key == second.key
    assert (first.digest == second.digest) == (one == other)


@given(some, some)
def test_a_request_id_names_one_body_so_that_no_other_is_refused(one: bytes, other: bytes) -> None:
    def made(body: bytes) -> Ticket | None:
        return ticket(body=body, x_request_id=HEX, idempotency_key=HEX)

    assert (made(one) == made(other)) == (one == other)


@pytest.mark.parametrize("name", [HEX, HEX.upper(), UUID])
def test_a_request_id_that_nobody_else_has_is_taken(name: str) -> None:
    assert ticket(x_request_id=name) is not None


@pytest.mark.parametrize("name", ["", "r-1", "test", HEX[:-1], HEX + "0", UUID + "\n", "-" * 36])
def test_a_request_id_that_may_be_a_constant_is_for_the_logs_alone(name: str) -> None:
    assert ticket(x_request_id=name) is None
    assert ticket(x_request_id=name, idempotency_key="k") is not None


def test_a_call_without_an_id_has_no_ticket() -> None:
    assert ticket() is None


@given(st.sampled_from([None, Running(b"a"), Running(b"b"), Recorded(b"a", False, b"")]))
def test_an_answer_is_told_for_its_own_body_only(known: Recorded | Running | None) -> None:
    step = step_for(Ticket(b"k", b"a"), known)

    if known is None:
        assert step is Step.ASK
    elif known.digest == b"a":
        assert step is (Step.REPLAY if isinstance(known, Recorded) else Step.WAIT)
    else:
        assert step is Step.REFUSE


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
def test_a_200_that_is_no_finished_answer_is_not_kept(body: bytes) -> None:
    assert not is_complete(body, bytes_max=1000)


@given(st.sampled_from(["choices", "data", "results"]), st.text())
def test_a_finished_answer_is_kept_up_to_its_limit(name: str, text: str) -> None:
    body = orjson.dumps({"id": "1", name: [{"text": text}], "error": None})

    assert is_complete(body, bytes_max=len(body))
    assert not is_complete(body, bytes_max=len(body) - 1)


@given(st.text(), st.booleans())
def test_only_an_error_event_breaks_a_stream_not_a_text_about_one(text: str, late: bool) -> None:
    event = b"data: " + orjson.dumps({"delta": {"content": text + '\n\ndata: {"error"'}}) + b"\n\n"
    error = b'data: {"error": {"message": "lost"}}\n\n'

    assert not has_error_event(event)
    assert has_error_event(event + error if late else error)


@given(st.integers(0, 9), st.integers(0, 9), st.sampled_from([0.0, 30.0]), st.booleans())
def test_orphans_never_outgrow_their_limit(
    orphans: int, most: int, grace_s: float, kept: bool
) -> None:
    going_on = goes_on(orphans=orphans, orphans_max=most, grace_s=grace_s, kept=kept)

    assert going_on == (orphans < most and grace_s > 0 and kept)

"""Lines of batch files, and the state machine of a batch."""

import io
from itertools import pairwise
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.batches import request_lines, state_machine
from sage_gateway.batches.schema import Batch, Status
from sage_gateway.errors import EngineFailed, GatewayError, InvalidRequest, NoReplica, QueueFull
from sage_gateway.requests.response import Response, error_response

CHAT = "/v1/chat/completions"


def line(**more: Any) -> bytes:
    whole = {"custom_id": "a", "method": "POST", "url": CHAT, "body": {"model": "talk"}, **more}
    return orjson.dumps({name: value for name, value in whole.items() if value is not None})


def batch(status: Status = Status.VALIDATING) -> Batch:
    return Batch(
        id="batch_1",
        endpoint=CHAT,
        input_file_id="file-1",
        completion_window="24h",
        created_at=0,
        expires_at=state_machine.WINDOW_S,
        status=status,
    )


@given(st.lists(st.binary(max_size=20).filter(lambda raw: b"\n" not in raw)))
def test_lines_are_numbered_as_an_editor_does_and_blank_lines_are_skipped(
    raws: list[bytes],
) -> None:
    found = list(request_lines.read_lines(io.BytesIO(b"\n".join(raws))))

    assert [(n, raw.strip()) for n, raw in found if raw] == [
        (n, raw.strip()) for n, raw in enumerate(raws, 1) if raw.strip()
    ]


def test_a_line_that_is_too_long_is_reported_and_the_next_line_is_read() -> None:
    long = b"x" * (2 * request_lines.LINE_BYTES_MAX + 7)

    found = list(request_lines.read_lines(io.BytesIO(long + b"\nshort\n" + long)))

    assert found == [(1, None), (2, b"short\n"), (3, None)]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        line(custom_id=None),
        line(custom_id=""),
        line(custom_id=7),
        line(custom_id="x" * 513),
        line(body=None),
        line(body=[]),
        line(body={}),
        line(body={"model": 5}),
        line(more=1),
        line()[:-1] + b"}}",
        b'{"custom_id":"\xff","method":"POST","url":"u","body":{"model":"m"}}',
        line(body={"model": "m", "x": "Y"}).replace(b'"Y"', b"NaN"),
        line(body={"model": "m", "x": "Y"}).replace(b'"Y"', b"[" * 100_000),
    ],
)
def test_a_malformed_line_is_refused(raw: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError, RecursionError)):
        request_lines.parse_line(raw)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({}, None),
        ({"method": "GET"}, "invalid_method"),
        ({"url": "/v1/embeddings"}, "invalid_url"),
        ({"body": {"model": "m", "stream": True}}, "stream_not_supported"),
    ],
)
def test_a_line_must_match_the_endpoint_of_its_batch(
    more: dict[str, Any], code: str | None
) -> None:
    wrong = request_lines.find_error(request_lines.parse_line(line(**more)), CHAT)

    assert (wrong and wrong[0]) == code


@pytest.mark.parametrize(
    ("error", "failures", "wait_s"),
    [
        (InvalidRequest("x"), 0, None),
        (QueueFull("x", retry_after_s=7), 1000, 7.0),
        (QueueFull("x", code="insufficient_quota", retry_after_s=80_000), 1000, 60.0),
        (NoReplica("x", code="not_ready", retry_after_s=1), 1000, 1.0),
        (NoReplica("x", code="engine_lost", retry_after_s=1), 3, 1.0),
        (NoReplica("x", code="engine_lost", retry_after_s=1), 4, None),
        (EngineFailed("x"), 3, 1.0),
        (EngineFailed("x"), 4, None),
    ],
)
def test_a_rate_limit_is_retried_without_bound_and_a_failure_a_few_times(
    error: GatewayError, failures: int, wait_s: float | None
) -> None:
    assert request_lines.retry_wait_s(error_response(error), failures) == wait_s


def test_the_request_id_of_a_line_is_unique_and_stable() -> None:
    ids = {request_lines.request_id(b, n) for b in ("batch_1", "batch_2") for n in range(100)}

    assert len(ids) == 200
    assert request_lines.request_id("batch_1", 7) in ids


@pytest.mark.parametrize("body", [b'{"a": 1}', b"[1]", b"no json", b"", b"\xff", b'{"a":\n1}'])
def test_any_engine_answer_becomes_one_line_of_json(body: bytes) -> None:
    written = request_lines.answer_line("batch_1", 3, 'with "quotes"\n', Response(200, body))

    assert written.count(b"\n") == 1
    page = orjson.loads(written)
    assert set(page) == {"id", "custom_id", "response", "error"}
    assert page["custom_id"] == 'with "quotes"\n'
    assert page["response"]["status_code"] == 200


def test_only_the_transitions_of_the_state_machine_are_allowed() -> None:
    for before in Status:
        for after in Status:
            if after in state_machine.NEXT[before]:
                found = state_machine.with_status(batch(before), after, 7.5)
                assert (found.status, getattr(found, f"{after}_at")) == (after, 7)
            else:
                with pytest.raises(ValueError, match="does not change"):
                    state_machine.with_status(batch(before), after, 7.5)


@given(st.data())
def test_every_batch_reaches_a_final_status(data: st.DataObject) -> None:
    life = [Status.VALIDATING]
    while not state_machine.is_final(life[-1]):
        life.append(data.draw(st.sampled_from(sorted(state_machine.NEXT[life[-1]]))))
        assert len(life) < 6

    assert all(after in state_machine.NEXT[before] for before, after in pairwise(life))
    assert life[-1] in {Status.FAILED, Status.COMPLETED, Status.EXPIRED, Status.CANCELLED}

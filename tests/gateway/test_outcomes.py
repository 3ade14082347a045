"""Each request is counted and logged once, with the status that its client gets."""

import asyncio
import gc
import logging
import uuid
from pathlib import Path
from typing import Any

import pytest
from engineless_gateway import CHAT, AwayStore, Outcomes
from typing_extensions import override

from sage_flink.common import StoreUnavailable
from sage_gateway.batches.batch_store import OwnedBatch
from sage_gateway.batches.schema import Batch
from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.errors import EngineFailed
from sage_gateway.inference.request_pipeline import BackgroundRequests
from sage_gateway.observability.request_tracker import RequestTracker
from sage_gateway.requests.request import Request


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """A function with the status and the request id of each line of the request log."""
    caplog.set_level(logging.INFO)

    def found() -> list[tuple[int, str]]:
        fields = [r.fields for r in caplog.records if r.name == "sage.gateway.requests"]
        return [(one["status"], one.get("request_id", "")) for one in fields]

    return found


def id_headers(with_id: bool) -> dict[str, str]:
    return {"x-request-id": uuid.uuid4().hex} if with_id else {}


WITH_AND_WITHOUT_ID = pytest.mark.parametrize("with_id", [False, True])


@WITH_AND_WITHOUT_ID
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_counted_once(
    outcomes: Outcomes, lines: Any, with_id: bool, stream: bool
) -> None:
    headers = id_headers(with_id)

    answer = await outcomes.ask(headers=headers, stream=stream)

    assert answer.status_code == 200
    assert outcomes.counts() == {("talk", "200"): 1}
    assert lines() == [(200, answer.headers["x-request-id"])]


@WITH_AND_WITHOUT_ID
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answered_request_is_freed_without_a_garbage_collection(
    outcomes: Outcomes, with_id: bool, stream: bool
) -> None:
    """A collection stops all requests, for 25-50 ms where thousands wait for it."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await outcomes.ask(headers=id_headers(with_id), stream=stream)
        await asyncio.sleep(0.01)
        left = sum(isinstance(one, Request | RequestTracker) for one in gc.get_objects())
    finally:
        gc.enable()

    assert left <= 2  # of the last request, which a task that ends may still hold


@WITH_AND_WITHOUT_ID
async def test_a_budget_that_cannot_be_looked_up_is_a_503_that_is_counted(
    outcomes: Outcomes, lines: Any, with_id: bool
) -> None:
    outcomes.store.away.add("admit")
    headers = id_headers(with_id)

    answer = await outcomes.ask(headers=headers)

    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "budget_unavailable"
    assert outcomes.counts() == {("-", "503"): 1}
    assert lines() == [(503, answer.headers["x-request-id"])]
    assert outcomes.models.requests == 0


async def test_a_line_of_a_batch_without_a_budget_is_counted(outcomes: Outcomes) -> None:
    outcomes.store.away.add("admit")
    batch = Batch(
        id="batch_1",
        endpoint=CHAT,
        input_file_id="file_1",
        completion_window="24h",
        created_at=0,
        expires_at=1,
    )
    line = b'{"model": "talk", "messages": [{"role": "user", "content": "x"}]}'

    batches = BackgroundRequests(outcomes.tenants.keys, outcomes.handler, job="batches")
    answer = await batches.answer(OwnedBatch("local", "local", batch), CHAT, "line-1", line)

    assert answer.status == 503
    assert outcomes.counts() == {("-", "503"): 1}


@WITH_AND_WITHOUT_ID
async def test_a_refusal_of_the_quota_is_counted(tmp_path: Path, lines: Any, with_id: bool) -> None:
    async with Outcomes(LimitsSpec(requests_per_minute=1), tmp_path) as outcomes:
        answers = [await outcomes.ask(headers=id_headers(with_id)) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [200, 429]
        assert outcomes.counts() == {("talk", "200"): 1, ("-", "429"): 1}
        assert [status for status, _ in lines()] == [200, 429]


async def test_a_reused_idempotency_key_is_counted(outcomes: Outcomes, lines: Any) -> None:
    headers = {"idempotency-key": "order 66"}

    answers = [await outcomes.ask(content, headers=headers) for content in ("mine", "yours")]

    assert [answer.status_code for answer in answers] == [200, 422]
    assert outcomes.counts() == {("talk", "200"): 1, ("-", "422"): 1}
    assert [status for status, _ in lines()] == [200, 422]


@WITH_AND_WITHOUT_ID
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_cannot_be_charged_is_counted_as_the_503_that_it_becomes(
    outcomes: Outcomes, lines: Any, with_id: bool, stream: bool
) -> None:
    outcomes.store.away.add("settle")

    answer = await outcomes.ask(headers=id_headers(with_id), stream=stream)

    assert "budget_unavailable" in answer.text
    assert answer.status_code == (200 if stream else 503)
    assert outcomes.counts() == {("talk", "503"): 1}
    assert [status for status, _ in lines()] == [503]


@WITH_AND_WITHOUT_ID
async def test_an_error_of_the_engine_is_counted_once(
    outcomes: Outcomes, lines: Any, with_id: bool
) -> None:
    outcomes.models.error = EngineFailed("it failed")

    answer = await outcomes.ask(headers=id_headers(with_id))

    assert answer.status_code == 502
    assert outcomes.counts() == {("talk", "502"): 1}
    assert [status for status, _ in lines()] == [502]


async def test_a_request_that_cannot_be_read_is_counted_once(
    outcomes: Outcomes, lines: Any
) -> None:
    answer = await outcomes.ask(messages="hi")

    assert answer.status_code == 400
    assert outcomes.counts() == {("-", "400"): 1}
    assert [status for status, _ in lines()] == [400]


async def test_each_client_of_a_joined_call_that_fails_is_counted(outcomes: Outcomes) -> None:
    outcomes.models.error = EngineFailed("it failed")
    headers = id_headers(with_id=True)

    answers = await asyncio.gather(*(outcomes.ask(headers=headers) for _ in range(3)))

    assert [answer.status_code for answer in answers] == [502, 502, 502]
    assert outcomes.models.requests == 1
    assert outcomes.counts() == {("talk", "502"): 1, ("-", "502"): 2}


async def test_a_replayed_answer_is_counted_by_the_ledger_only(outcomes: Outcomes) -> None:
    headers = id_headers(with_id=True)

    answers = [await outcomes.ask(headers=headers) for _ in range(2)]

    assert answers[1].headers["x-sage-ledger"] == "hit"
    assert outcomes.counts() == {("talk", "200"): 1}


async def test_the_seconds_of_an_error_include_the_wait_for_it(
    outcomes: Outcomes, lines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class SlowStore(AwayStore):
        @override
        async def admit(self, call: Any) -> Any:
            await asyncio.sleep(0.2)
            raise StoreUnavailable("it is away")

    outcomes.tenants.store = SlowStore()

    await outcomes.ask()

    [line] = [r for r in caplog.records if r.name == "sage.gateway.requests"]
    assert line.fields["seconds"] >= 0.2  # type: ignore[attr-defined]

"""The promises of every target of a Call node for one request, whatever the engine does.

One run a target: its records' texts script the engine (``benchmarks/mock_engine``), a process of
its own, and each test checks the outcome of its own records.
"""

import json

import pytest
from call_branches import (
    ATTEMPTS,
    BROKEN,
    CACHE_TTL_S,
    CAPACITY,
    FINAL,
    RECORDS,
    RETRY_BUDGET_S,
    SILENCE_S,
    TRANSIENT,
    chats,
    failure_of,
    is_answered,
    ordered_calls,
    requests_with,
    text_of,
)
from call_targets import JOB, TARGETS, RunResult, run_target
from minicluster import QUIET

from benchmark_sage.mock_engine import MockEngine
from sage_flink.flow import Admission, Call
from sage_flink.flow.call_requests import call_headers, request_id

pytestmark = [pytest.mark.timeout(400), *QUIET]


def test_every_record_is_answered_or_dead_lettered_once(run: RunResult) -> None:
    out = [record.id for records in run.answered.values() for record in records]
    out += [failed.id for letters in run.failed.values() for failed in letters]

    assert sorted(out) == sorted(RECORDS)


def test_a_request_gets_its_own_answer(run: RunResult) -> None:
    assert is_answered(run, "plain")
    assert is_answered(run, "own")


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_transient_failure_is_retried_under_the_same_id(run: RunResult, kind: str) -> None:
    # A call on a reused connection that ends is sent again as the same attempt.
    requests = requests_with(run, "lost" if kind in BROKEN else "chat", f"{kind} once")

    assert is_answered(run, f"once-{kind}")
    assert len(requests) == 2
    assert len({request["headers"].get("x-request-id") for request in requests}) == 1
    assert [request["headers"].get("x-sage-attempt") for request in requests] == ["1", "2"]


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_lasting_failure_is_dead_lettered_after_all_attempts(
    target: str, run: RunResult, kind: str
) -> None:
    attempts, reason = failure_of(run, f"always-{kind}")

    sent = len(requests_with(run, "chat", f"{kind} always"))
    assert attempts == ATTEMPTS
    if target == "native" and kind in BROKEN:
        # It repeats a request on a broken keep-alive connection, at most once an attempt.
        assert ATTEMPTS <= sent <= 2 * ATTEMPTS
    else:
        assert sent == ATTEMPTS
    assert len(reason) > 10


@pytest.mark.parametrize("kind", FINAL)
def test_a_final_failure_is_not_retried(run: RunResult, kind: str) -> None:
    attempts, reason = failure_of(run, f"always-{kind}")

    assert (attempts, reason) == (1, f"told to answer {kind}")
    assert len(requests_with(run, "chat", f"{kind} always")) == 1


def test_a_dead_letter_has_the_message_of_the_engine(run: RunResult) -> None:
    message = {kind: failure_of(run, f"always-{kind}")[1] for kind in TRANSIENT}

    assert message["503"] == "told to answer 503"
    assert "told to answer 200 with an error" in message["error_200"]
    assert "JSON" in message["half_json"]


def test_a_busy_engine_is_retried_until_it_answers(run: RunResult) -> None:
    assert is_answered(run, "again")
    assert len(requests_with(run, "chat", "] again")) == 3


@pytest.mark.parametrize(
    ("record", "seconds"), [("pause", 1.0), ("part-pause", 0.5)], ids=["whole", "decimal"]
)
def test_no_retry_is_sooner_than_retry_after(run: RunResult, record: str, seconds: float) -> None:
    first, second = requests_with(run, "chat", text_of(record))

    assert is_answered(run, record)
    assert second["began"] - first["ended"] >= seconds


def test_a_pause_beyond_the_budget_ends_the_call_immediately(run: RunResult) -> None:
    assert failure_of(run, "long-pause") == (1, "told to answer 429")


def test_an_answer_of_twenty_megabytes_is_accepted(run: RunResult) -> None:
    assert is_answered(run, "20-mb")


def test_more_than_32_mib_are_rejected(run: RunResult) -> None:
    attempts, reason = failure_of(run, "50-mb")

    assert attempts == 1
    assert "33554432 bytes" in reason


def test_a_timeout_fails_the_record_and_cancels_the_request(run: RunResult) -> None:
    attempts, reason = failure_of(run, "nothing")
    (request,) = requests_with(run, "silence", "nothing for a minute")

    assert attempts == 1
    assert reason.startswith(f"no answer within {SILENCE_S:g}")
    assert SILENCE_S - 4 < request["ended"] - request["began"] < SILENCE_S + 30


def test_the_budget_covers_all_attempts(run: RunResult) -> None:
    requests = run.of("many-attempts")
    attempts, reason = failure_of(run, "many-attempts")

    assert len(requests) == attempts > 2
    assert requests[-1]["began"] - requests[0]["began"] <= RETRY_BUDGET_S + 2
    assert "told to answer 503" in reason


def test_a_record_past_its_deadline_sends_no_request(run: RunResult) -> None:
    attempts, reason = failure_of(run, "late")

    assert attempts == 0
    assert "deadline" in reason
    assert not requests_with(run, "chat", "too late already")


@pytest.mark.parametrize("record", ["skip", "e-skip"])
def test_a_record_with_an_empty_body_passes_unchanged(run: RunResult, record: str) -> None:
    assert run.record(record) == RECORDS[record]


def test_headers_carry_tenant_priority_and_deadline(run: RunResult) -> None:
    node = Call("chat", "in", chats().spec, capacity=1, timeout_s=1, admission=Admission("acme"))
    for id_, tenant, priority in (("plain", "acme", "normal"), ("own", "zeta", "high")):
        (request,) = requests_with(run, "chat", json.dumps(text_of(id_)))
        headers, wanted = request["headers"], call_headers(JOB, node, RECORDS[id_])

        assert {name: headers.get(name) for name in wanted} == wanted
        assert (headers["x-sage-tenant"], headers["x-sage-priority"]) == (tenant, priority)
        left_s = int(headers["x-sage-deadline-ms"]) / 1000 - request["began"]
        assert 580 < left_s <= 601
        assert headers.get("authorization") == (f"Bearer {run.key}" if run.key else None)
        assert headers["content-type"] == "application/json"


def test_an_ordered_call_keeps_the_order(run: RunResult) -> None:
    ids = [record.id for record in run.answered["ordered"]]

    assert ids == [f"o{n:02}" for n in range(24) if n != 13]
    assert "o13" in run.failed


def test_an_unordered_call_emits_fast_records_before_slow_ones(run: RunResult) -> None:
    ids = [record.id for record in run.answered["chat"]]

    assert ids.index("plain") < ids.index("pause")


def test_no_more_than_capacity_are_in_flight(run: RunResult) -> None:
    requests = run.of("ordered")
    moments = [(r["began"], 1) for r in requests] + [(r["ended"], -1) for r in requests]

    in_flight = peak = 0
    for _, change in sorted(moments):
        in_flight += change
        peak = max(peak, in_flight)
    assert 2 <= peak <= CAPACITY


def test_each_request_names_the_age_of_answers_that_its_step_accepts(run: RunResult) -> None:
    shown = {
        branch: {request["headers"].get("x-sage-cache") for request in run.of(branch)}
        for branch in ("tenant-texts", "vectors", "ordered")
    }

    assert shown == {"tenant-texts": {f"ttl={CACHE_TTL_S}"}, "vectors": {None}, "ordered": {None}}


def test_a_second_run_with_one_gateway_down_sends_the_same_request_ids(
    run: RunResult, target: str, engine: MockEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = {r["headers"].get("x-request-id") for r in run.of("ordered")}
    engine.reset()
    both = f"http://127.0.0.1:9,{engine.url}"

    again = run_target(
        TARGETS[target], [ordered_calls()], engine, tmp_path_factory.mktemp("again"), url=both
    )

    node = Call("ordered", "in", ordered_calls().spec, capacity=1, timeout_s=1)
    with_request = [r for r in ordered_calls().records if "skip" not in r.value]
    assert {r["headers"].get("x-request-id") for r in again.of("ordered")} == before
    assert before == {request_id(JOB, node, record) for record in with_request}
    assert len(again.answered["ordered"]) == 23

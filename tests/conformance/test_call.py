"""The promises of every target of a Call node, whatever the engine does.

One run a target: its records' texts script the engine (``benchmarks/mock_engine``), a process of
its own, and each test checks the outcome of its own records. A gap of one target is a line of GAPS.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from call_targets import JOB, KEY, TARGETS, Branch, RunResult, run_target
from minicluster import QUIET, restore_environment

import sage_flink as sage
from benchmark_sage.mock_engine import MockEngine, mock_engine
from sage_flink.common import Record
from sage_flink.common.values import require_mapping
from sage_flink.flow import Admission, Batching, Call, Retry
from sage_flink.flow.call_requests import call_headers, request_id
from sage_flink.inference import Chat, Embed

pytestmark = [pytest.mark.timeout(400), *QUIET]

#: Name of a test in pytest -> the reason why its target fails it.
GAPS: dict[str, str] = {}
DIM = 8
ATTEMPTS = 3
CHAT_S, SILENCE_S, RETRY_BUDGET_S, HANG_TIMEOUT_S = 40.0, 10.0, 3.0, 8.0
CAPACITY = 4
ITEMS_MAX, TOKENS_MAX = 8, 100
FRESH_S = 30
CACHE_TTL_S = 60
#: Faults of one request, by the script in its text; each persists.
TRANSIENT = ["408", "429", "500", "502", "503", "504", "close", "cut", "half_json", "error_200"]
FINAL = ["400", "401", "404", "413", "422"]
#: The faults of a poison item; the others are states of the engine.
POISON = ["500", "502", "504", "half_json", "error_200", "400", "413", "422", "bytes=50000000"]
BROKEN = ["close", "cut"]
BUSY = ["408", "429", "503"]


class SilentChat(Chat):
    """A chat that sends no request for a record with ``skip``."""

    def request(self, record: Record) -> bytes:
        return b"" if "skip" in require_mapping(record) else Chat.request(self, record)


class SilentEmbed(Embed):
    """An embedding that sends no request for a record with ``skip``."""

    def request(self, record: Record) -> bytes:
        return b"" if "skip" in require_mapping(record) else Embed.request(self, record)


def call_record(record_id: str, text: str, **headers: bytes) -> Record:
    messages = [{"role": "user", "content": text}]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Record(record_id, {"messages": messages, "text": text}, headers=named)


def chats() -> Branch:
    records = [
        call_record("plain", "hello"),
        call_record("again", "[[429 first=2]] again"),
        call_record("pause", "[[429 retry_after=1 first=1]] pause"),
        call_record("part-pause", "[[503 retry_after=0.5 first=1]] part of a pause"),
        call_record("long-pause", "[[429 retry_after=600]] a pause beyond the budget"),
        call_record("20-mb", "[[bytes=20000000]] twenty megabytes"),
        call_record("50-mb", "[[bytes=50000000]] fifty megabytes"),
        call_record("late", "too late already", sage_deadline_ms=b"1000"),
        call_record("own", "its own words", sage_tenant=b"zeta", sage_priority=b"high"),
        Record("skip", {"skip": True}),
        *(call_record(f"once-{kind}", f"[[{kind} first=1]] {kind} once") for kind in TRANSIENT),
        *(call_record(f"always-{kind}", f"[[{kind}]] {kind} always") for kind in TRANSIENT + FINAL),
    ]
    admission = Admission(tenant="acme", slack_s=600.0)
    call = {"timeout_s": CHAT_S, "retry": Retry(ATTEMPTS), "admission": admission}
    return Branch("chat", SilentChat("chat"), tuple(records), {"capacity": 64, **call})


def silence() -> Branch:
    """A call that lasts as long as it may; a branch of its own, since no other one should."""
    records = (call_record("nothing", "[[hang=60s]] nothing for a minute"),)
    call = {"capacity": 8, "timeout_s": SILENCE_S}
    return Branch("silence", sage.chat(model="silence"), records, call)


def many_attempts() -> Branch:
    records = (call_record("many-attempts", "[[503]] more attempts than time"),)
    call = {"capacity": 8, "timeout_s": RETRY_BUDGET_S, "retry": Retry(1000)}
    return Branch("many-attempts", sage.chat(model="many-attempts"), records, call)


def ordered_calls() -> Branch:
    """Earlier records are slower; one sends no request and one fails."""
    records = [
        call_record(f"o{n:02}", f"[[hang={240 - 10 * n}ms]] in order {n}") for n in range(24)
    ]
    records[9] = Record("o09", {"skip": True})
    records[13] = call_record("o13", "[[400]] in order 13")
    call = {"capacity": CAPACITY, "timeout_s": 60.0, "ordered": True}
    return Branch("ordered", SilentChat("ordered"), tuple(records), call)


def texts() -> Branch:
    """Every fault that ends a request, each among neighbours."""
    poison = [call_record(f"e-{kind}", f"[[{kind}]] poison by {kind}") for kind in POISON]
    transient = [
        *(call_record(f"e-busy-{kind}", f"[[{kind} first=1]] busy") for kind in BUSY),
        call_record("e-shuffled", "[[shuffled]] vectors out of order"),
        call_record("e-20-mb", "[[bytes=20000000]] twenty megabytes"),
        call_record("e-once", "[[500 first=1]] once"),
        call_record("e-pause", "[[429 retry_after=0.3 first=1]] a pause"),
    ]
    neighbours = [call_record(f"n{n:02}", f"neighbour {n}") for n in range(27)]
    records = [r for n in range(9) for r in (poison[n], *neighbours[3 * n : 3 * n + 3])]
    records += [*transient, Record("e-skip", {"skip": True})]
    call = {"capacity": 128, "timeout_s": 60.0, "retry": Retry(2)}
    batching = Batching(items_max=ITEMS_MAX, linger_s=0.2)
    return Branch("embed", SilentEmbed("embed"), tuple(records), {**call, "batching": batching})


def connection_faults() -> Branch:
    """Texts that end the connection; a branch of their own, without other faults."""
    records = [
        call_record(f"b{n}", f"beside a text that breaks the connection {n}") for n in range(6)
    ]
    records += [call_record(f"e-{kind}", f"[[{kind}]] poison by {kind}") for kind in BROKEN]
    call: dict[str, Any] = {"capacity": 64, "timeout_s": 60.0, "retry": Retry(2)}
    call["batching"] = Batching(linger_s=0.3)
    return Branch("connection-faults", sage.embed(model="connection-faults"), tuple(records), call)


def vectors() -> Branch:
    """Every fault of one vector, in a request where most are good."""
    bad = ["dim=7", "nan", "one_few"]
    records = [call_record(f"v{n:02}", f"good {n}") for n in range(12)]
    records += [call_record(f"v-{kind}", f"[[{kind}]] a vector") for kind in bad]
    call: dict[str, Any] = {"capacity": 64, "timeout_s": 30.0}
    call["batching"] = Batching(items_max=16, linger_s=1.0)
    return Branch("vectors", sage.embed(model="vectors"), tuple(records), call)


def tenant_texts() -> Branch:
    """Texts of 40 tokens, of two tenants and two priorities in turn."""
    records = tuple(
        call_record(
            f"t{n:02}",
            f"{n:02} {'x' * 157}",
            sage_tenant=(b"a", b"b")[n % 2],
            sage_priority=(b"high", b"low")[n // 2 % 2],
        ).replace(timestamp_ms=1_700_000_000_000 + 1_000 * n)
        for n in range(24)
    )
    call: dict[str, Any] = {"capacity": 64, "timeout_s": 30.0}
    call["admission"] = Admission(freshness_s=FRESH_S)
    call["cache_ttl_s"] = CACHE_TTL_S
    call["batching"] = Batching(linger_s=0.3, tokens_max=TOKENS_MAX)
    return Branch("tenant-texts", sage.embed(model="tenant-texts"), records, call)


def hanging_texts() -> Branch:
    records = [call_record(f"h{n}", f"beside a text that hangs {n}") for n in range(7)]
    records.append(call_record("h-nothing", "[[hang=60s]] nothing for a minute"))
    call: dict[str, Any] = {"capacity": 64, "timeout_s": HANG_TIMEOUT_S}
    call["batching"] = Batching(items_max=8, linger_s=0.3)
    return Branch("hanging-text", sage.embed(model="hanging-text"), tuple(records), call)


BRANCHES = [
    chats(),
    silence(),
    many_attempts(),
    ordered_calls(),
    texts(),
    connection_faults(),
    vectors(),
    tenant_texts(),
    hanging_texts(),
]
RECORDS = {record.id: record for branch in BRANCHES for record in branch.records}


@pytest.fixture(scope="module")
def engine() -> Iterator[MockEngine]:
    with mock_engine(dim=DIM, record=100_000) as started:
        yield started


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name == "local" else [pytest.mark.flink, pytest.mark.alone])
        for name in TARGETS
    ],
)
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """One target after the other, each with the key in its environment."""
    environment = restore_environment()
    next(environment)
    os.environ["SAGE_GATEWAY_KEY"] = KEY
    yield request.param
    next(environment, None)


@pytest.fixture(scope="module")
def run(target: str, engine: MockEngine, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The one run of this target."""
    engine.reset()
    return run_target(TARGETS[target], BRANCHES, engine, tmp_path_factory.mktemp(target))


@pytest.fixture(autouse=True)
def gap(request: pytest.FixtureRequest) -> None:
    if reason := GAPS.get(request.node.name):
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))


def requests_with(run: RunResult, branch: str, text: str) -> list[dict[str, Any]]:
    """The branch's requests that contain ``text``, in order."""
    return [request for request in run.of(branch) if text in request["body"]]


def failure_of(run: RunResult, record_id: str) -> tuple[int, str]:
    """Attempts and reason of the only dead letter of a record."""
    (failed,) = run.failed[record_id]
    assert failed.step in {branch.name for branch in BRANCHES}
    return failed.attempts, failed.reason


def text_of(record_id: str) -> str:
    return str(RECORDS[record_id].value["text"])


def is_answered(run: RunResult, record_id: str) -> bool:
    """Whether the record carries the answer to its own question."""
    digest = hashlib.sha256(text_of(record_id).encode()).hexdigest()[:16]
    return str(run.record(record_id).value["answer"]).startswith(f"sum:{digest}")


def is_embedded(run: RunResult, engine: MockEngine, *ids: str) -> bool:
    """Whether each record carries the vector of its own text."""
    return all(run.record(i).value["vector"] == vector_of(engine, text_of(i)) for i in ids)


def vector_of(engine: MockEngine, text: str) -> bytes:
    from sage_flink.flow.calls import embeddings

    harmless = embeddings.request("reference", [text])
    body = httpx.post(f"{engine.url}/v1/embeddings", content=harmless, timeout=60).content
    (vector,) = embeddings.read("reference", body, 1)
    assert isinstance(vector, bytes)
    return vector


def test_every_record_is_answered_or_dead_lettered_once(run: RunResult) -> None:
    out = [record.id for records in run.answered.values() for record in records]
    out += [failed.id for letters in run.failed.values() for failed in letters]

    assert sorted(out) == sorted(RECORDS)


def test_a_request_gets_its_own_answer(run: RunResult) -> None:
    assert is_answered(run, "plain")
    assert is_answered(run, "own")


@pytest.mark.parametrize("kind", TRANSIENT)
def test_a_transient_failure_is_retried_under_the_same_id(run: RunResult, kind: str) -> None:
    requests = requests_with(run, "chat", f"{kind} once")

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


def test_texts_are_batched_up_to_the_limit(run: RunResult) -> None:
    sizes = [len(request["parsed"]["input"]) for request in run.of("embed")]

    assert max(sizes) == ITEMS_MAX


@pytest.mark.parametrize("kind", POISON + BROKEN)
def test_a_poison_item_fails_alone_with_its_reason(run: RunResult, kind: str) -> None:
    attempts, reason = failure_of(run, f"e-{kind}")
    requests = requests_with(
        run, "connection-faults" if kind in BROKEN else "embed", f"poison by {kind}"
    )

    # On a broken connection the number of requests depends on which connection was free.
    assert attempts == len(requests) or kind in BROKEN
    assert reason == f"told to answer {kind}" if kind.isdigit() else len(reason) > 10
    assert requests[-1]["parsed"]["input"] == [text_of(f"e-{kind}")]


def test_the_neighbours_of_a_poison_item_get_their_vectors(
    run: RunResult, engine: MockEngine
) -> None:
    assert is_embedded(run, engine, *(f"n{n:02}" for n in range(27)), *(f"b{n}" for n in range(6)))


@pytest.mark.parametrize(
    "record",
    ["e-shuffled", "e-20-mb", "e-once", "e-pause", *(f"e-busy-{kind}" for kind in BUSY)],
)
def test_a_text_with_a_transient_fault_is_embedded(
    run: RunResult, engine: MockEngine, record: str
) -> None:
    assert is_embedded(run, engine, record)


@pytest.mark.parametrize(
    ("kind", "message"), [("dim=7", "dimension 7"), ("nan", "finite"), ("one_few", "no embedding")]
)
def test_a_bad_vector_fails_its_text_only(
    run: RunResult, engine: MockEngine, kind: str, message: str
) -> None:
    assert message in failure_of(run, f"v-{kind}")[1]
    assert is_embedded(run, engine, *(f"v{n:02}" for n in range(12)))


def test_tenants_and_priorities_never_share_a_request(run: RunResult) -> None:
    record_of = {record.value["text"]: record for record in tenant_texts().records}
    for request in run.of("tenant-texts"):
        records = [record_of[text] for text in request["parsed"]["input"]]
        owners = {(r.headers["sage-tenant"], r.headers["sage-priority"]) for r in records}
        named = (request["headers"]["x-sage-tenant"], request["headers"]["x-sage-priority"])

        assert owners == {(named[0].encode(), named[1].encode())}
        assert int(request["headers"]["x-sage-deadline-ms"]) / 1000 > request["began"]
        soft_ms = min(record.timestamp_ms for record in records) + 1_000 * FRESH_S
        assert request["headers"]["x-sage-soft-deadline-ms"] == str(soft_ms)


def test_each_request_names_the_age_of_answers_that_its_step_accepts(run: RunResult) -> None:
    shown = {
        branch: {request["headers"].get("x-sage-cache") for request in run.of(branch)}
        for branch in ("tenant-texts", "vectors", "ordered")
    }

    assert shown == {"tenant-texts": {f"ttl={CACHE_TTL_S}"}, "vectors": {None}, "ordered": {None}}


def test_batches_stay_below_tokens_max(run: RunResult) -> None:
    sizes = [len("".join(request["parsed"]["input"])) / 4 for request in run.of("tenant-texts")]

    assert max(sizes) <= TOKENS_MAX
    assert len(run.answered["tenant-texts"]) == 24


def test_a_text_that_hangs_fails_alone(run: RunResult, engine: MockEngine) -> None:
    assert failure_of(run, "h-nothing")[1].startswith("no answer within 8")
    assert is_embedded(run, engine, *(f"h{n}" for n in range(7)))


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

"""The promises of every target of a Call node, whatever the engine does.

One run a target: its records' texts script the engine (``benchmarks/mock_engine``), a process of
its own, and each test looks at what came of its own records. A gap of one target is a line of GAPS.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from call_targets import JOB, KEY, TARGETS, Branch, Ran, ran
from minicluster import QUIET, environment_kept

import sage_flink as sage
from benchmark_sage.mock_engine import MockEngine, mock_engine
from sage_flink.common import Record
from sage_flink.common.values import require_mapping
from sage_flink.flow import Admission, Batching, Call, Retry
from sage_flink.flow.steps import call_headers, request_id
from sage_flink.inference import Chat, Embed

pytestmark = [pytest.mark.timeout(400), *QUIET]

#: Test, as pytest names it -> what its target does not do yet.
GAPS: dict[str, str] = {}
DIM = 8
ATTEMPTS = 3
CHAT_S, PATIENCE_S, HUNG_S = 10.0, 3.0, 8.0
CAPACITY = 4
ITEMS_MAX, TOKENS_MAX = 8, 100
#: Faults of one request, by what they script; each persists.
PASSING = ["408", "429", "500", "502", "503", "504", "close", "cut", "half_json", "error_200"]
FINAL = ["400", "401", "404", "413", "422"]
#: The faults of a poison item; the others are states of the engine.
POISON = ["500", "502", "504", "half_json", "error_200", "400", "413", "422", "bytes=50000000"]
BROKEN = ["close", "cut"]
BUSY = ["408", "429", "503"]


class SilentChat(Chat):
    """A chat that has nothing to ask about a record that says ``skip``."""

    def request(self, record: Record) -> bytes:
        return b"" if "skip" in require_mapping(record) else Chat.request(self, record)


class SilentEmbed(Embed):
    """An embedding that has nothing to ask about a record that says ``skip``."""

    def request(self, record: Record) -> bytes:
        return b"" if "skip" in require_mapping(record) else Embed.request(self, record)


def asked(which: str, text: str, **headers: bytes) -> Record:
    messages = [{"role": "user", "content": text}]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Record(which, {"messages": messages, "text": text}, headers=named)


def chats() -> Branch:
    records = [
        asked("plain", "hello"),
        asked("again", "[[429 first=2]] again"),
        asked("pause", "[[429 retry_after=1 first=1]] pause"),
        asked("part-pause", "[[503 retry_after=0.5 first=1]] part of a pause"),
        asked("long-pause", "[[429 retry_after=600]] a pause beyond the budget"),
        asked("20-mb", "[[bytes=20000000]] twenty megabytes"),
        asked("50-mb", "[[bytes=50000000]] fifty megabytes"),
        asked("nothing", "[[hang=60s]] nothing for a minute"),
        asked("late", "too late already", sage_deadline_ms=b"1000"),
        asked("own", "its own words", sage_tenant=b"zeta", sage_priority=b"high"),
        Record("skip", {"skip": True}),
        *(asked(f"once-{kind}", f"[[{kind} first=1]] {kind} once") for kind in PASSING),
        *(asked(f"ever-{kind}", f"[[{kind}]] {kind} for ever") for kind in PASSING + FINAL),
    ]
    admission = Admission(tenant="acme", slack_s=600.0)
    call = {"timeout_s": CHAT_S, "retry": Retry(ATTEMPTS), "admission": admission}
    return Branch("chat", SilentChat("chat"), tuple(records), {"capacity": 64, **call})


def patient() -> Branch:
    records = (asked("patient", "[[503]] more attempts than time"),)
    call = {"capacity": 8, "timeout_s": PATIENCE_S, "retry": Retry(1000)}
    return Branch("patient", sage.chat(model="patient"), records, call)


def in_order() -> Branch:
    """The earlier, the slower; one has nothing to ask and one fails."""
    records = [asked(f"o{n:02}", f"[[hang={240 - 10 * n}ms]] in order {n}") for n in range(24)]
    records[9] = Record("o09", {"skip": True})
    records[13] = asked("o13", "[[400]] in order 13")
    call = {"capacity": CAPACITY, "timeout_s": 60.0, "ordered": True}
    return Branch("ordered", SilentChat("ordered"), tuple(records), call)


def texts() -> Branch:
    """Every fault that ends a request, each among neighbours."""
    poison = [asked(f"e-{kind}", f"[[{kind}]] poison by {kind}") for kind in POISON]
    passing = [
        *(asked(f"e-busy-{kind}", f"[[{kind} first=1]] busy") for kind in BUSY),
        asked("e-shuffled", "[[shuffled]] vectors out of order"),
        asked("e-20-mb", "[[bytes=20000000]] twenty megabytes"),
        asked("e-once", "[[500 first=1]] once"),
        asked("e-pause", "[[429 retry_after=0.3 first=1]] a pause"),
    ]
    neighbours = [asked(f"n{n:02}", f"neighbour {n}") for n in range(27)]
    records = [r for n in range(9) for r in (poison[n], *neighbours[3 * n : 3 * n + 3])]
    records += [*passing, Record("e-skip", {"skip": True})]
    call = {"capacity": 128, "timeout_s": 60.0, "retry": Retry(2)}
    batching = Batching(items_max=ITEMS_MAX, linger_s=0.2)
    return Branch("embed", SilentEmbed("embed"), tuple(records), {**call, "batching": batching})


def broken() -> Branch:
    """Texts that end the connection, apart from those of other faults."""
    records = [asked(f"b{n}", f"beside a text that breaks the connection {n}") for n in range(6)]
    records += [asked(f"e-{kind}", f"[[{kind}]] poison by {kind}") for kind in BROKEN]
    call: dict[str, Any] = {"capacity": 64, "timeout_s": 60.0, "retry": Retry(2)}
    call["batching"] = Batching(linger_s=0.3)
    return Branch("broken", sage.embed(model="broken"), tuple(records), call)


def vectors() -> Branch:
    """Every fault of one vector, in a request where most are good."""
    bad = ["dim=7", "nan", "one_few"]
    records = [asked(f"v{n:02}", f"good {n}") for n in range(12)]
    records += [asked(f"v-{kind}", f"[[{kind}]] a vector") for kind in bad]
    call: dict[str, Any] = {"capacity": 64, "timeout_s": 30.0}
    call["batching"] = Batching(items_max=16, linger_s=1.0)
    return Branch("vectors", sage.embed(model="vectors"), tuple(records), call)


def apart() -> Branch:
    """Texts of 40 tokens, of two tenants and two priorities in turn."""
    records = tuple(
        asked(
            f"t{n:02}",
            f"{n:02} {'x' * 157}",
            sage_tenant=(b"a", b"b")[n % 2],
            sage_priority=(b"high", b"low")[n // 2 % 2],
        )
        for n in range(24)
    )
    call: dict[str, Any] = {"capacity": 64, "timeout_s": 30.0}
    call["batching"] = Batching(linger_s=0.3, tokens_max=TOKENS_MAX)
    return Branch("apart", sage.embed(model="apart"), records, call)


def hung() -> Branch:
    records = [asked(f"h{n}", f"beside a text that hangs {n}") for n in range(7)]
    records.append(asked("h-nothing", "[[hang=60s]] nothing for a minute"))
    call: dict[str, Any] = {"capacity": 64, "timeout_s": HUNG_S}
    call["batching"] = Batching(items_max=8, linger_s=0.3)
    return Branch("hung", sage.embed(model="hung"), tuple(records), call)


BRANCHES = [chats(), patient(), in_order(), texts(), broken(), vectors(), apart(), hung()]
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
    kept = environment_kept()
    next(kept)
    os.environ["SAGE_GATEWAY_KEY"] = KEY
    yield request.param
    next(kept, None)


@pytest.fixture(scope="module")
def run(target: str, engine: MockEngine, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The one run of this target."""
    engine.reset()
    return ran(TARGETS[target], BRANCHES, engine, tmp_path_factory.mktemp(target))


@pytest.fixture(autouse=True)
def gap(request: pytest.FixtureRequest) -> None:
    if reason := GAPS.get(request.node.name):
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))


def sent(run: Ran, branch: str, text: str) -> list[dict[str, Any]]:
    """The branch's requests that held ``text``, in order."""
    return [request for request in run.of(branch) if text in request["body"]]


def failure_of(run: Ran, which: str) -> tuple[int, str]:
    """Attempts and reason of the one dead letter of ``which``."""
    (failed,) = run.failed[which]
    assert failed.step in {branch.name for branch in BRANCHES}
    return failed.attempts, failed.reason


def text_of(which: str) -> str:
    return str(RECORDS[which].value["text"])


def is_answered(run: Ran, which: str) -> bool:
    """Whether the record carries the answer to its own question."""
    digest = hashlib.sha256(text_of(which).encode()).hexdigest()[:16]
    return str(run.record(which).value["answer"]).startswith(f"sum:{digest}")


def is_embedded(run: Ran, engine: MockEngine, *ids: str) -> bool:
    """Whether each record carries the vector of its own text."""
    return all(run.record(i).value["vector"] == vector_of(engine, text_of(i)) for i in ids)


def vector_of(engine: MockEngine, text: str) -> bytes:
    from sage_flink.flow.calls import embeddings

    harmless = embeddings.request("reference", [text])
    body = httpx.post(f"{engine.url}/v1/embeddings", content=harmless, timeout=60).content
    (vector,) = embeddings.read("reference", body, 1)
    assert isinstance(vector, bytes)
    return vector


def test_every_record_is_answered_or_dead_lettered_once(run: Ran) -> None:
    out = [record.id for records in run.answered.values() for record in records]
    out += [failed.id for letters in run.failed.values() for failed in letters]

    assert sorted(out) == sorted(RECORDS)


def test_a_request_gets_its_own_answer(run: Ran) -> None:
    assert is_answered(run, "plain")
    assert is_answered(run, "own")


@pytest.mark.parametrize("kind", PASSING)
def test_a_transient_failure_is_retried_under_the_same_id(run: Ran, kind: str) -> None:
    requests = sent(run, "chat", f"{kind} once")

    assert is_answered(run, f"once-{kind}")
    assert len(requests) == 2
    assert len({request["headers"].get("x-request-id") for request in requests}) == 1
    assert [request["headers"].get("x-sage-attempt") for request in requests] == ["1", "2"]


@pytest.mark.parametrize("kind", PASSING)
def test_a_lasting_failure_is_dead_lettered_after_all_attempts(
    target: str, run: Ran, kind: str
) -> None:
    attempts, reason = failure_of(run, f"ever-{kind}")

    seen = len(sent(run, "chat", f"{kind} for ever"))
    assert attempts == ATTEMPTS
    if target == "native" and kind in BROKEN:
        # It asks again, uncounted, where a kept connection breaks: once an attempt at most.
        assert ATTEMPTS <= seen <= 2 * ATTEMPTS
    else:
        assert seen == ATTEMPTS
    assert len(reason) > 10


@pytest.mark.parametrize("kind", FINAL)
def test_a_final_failure_is_not_retried(run: Ran, kind: str) -> None:
    attempts, reason = failure_of(run, f"ever-{kind}")

    assert (attempts, reason) == (1, f"told to answer {kind}")
    assert len(sent(run, "chat", f"{kind} for ever")) == 1


def test_a_dead_letter_has_the_message_of_the_engine(run: Ran) -> None:
    said = {kind: failure_of(run, f"ever-{kind}")[1] for kind in PASSING}

    assert said["503"] == "told to answer 503"
    assert "told to answer 200 with an error" in said["error_200"]
    assert "JSON" in said["half_json"]


def test_a_busy_engine_is_retried_until_it_answers(run: Ran) -> None:
    assert is_answered(run, "again")
    assert len(sent(run, "chat", "] again")) == 3


@pytest.mark.parametrize(
    ("record", "seconds"), [("pause", 1.0), ("part-pause", 0.5)], ids=["whole", "decimal"]
)
def test_no_retry_is_sooner_than_retry_after(run: Ran, record: str, seconds: float) -> None:
    first, second = sent(run, "chat", text_of(record))

    assert is_answered(run, record)
    assert second["began"] - first["ended"] >= seconds


def test_a_pause_beyond_the_budget_ends_the_call_immediately(run: Ran) -> None:
    assert failure_of(run, "long-pause") == (1, "told to answer 429")


def test_twenty_megabytes_are_an_answer(run: Ran) -> None:
    assert is_answered(run, "20-mb")


def test_more_than_32_mib_are_not(run: Ran) -> None:
    attempts, reason = failure_of(run, "50-mb")

    assert attempts == 1
    assert "33554432 bytes" in reason


def test_a_timeout_fails_the_record_and_cancels_the_request(run: Ran) -> None:
    attempts, reason = failure_of(run, "nothing")
    (request,) = sent(run, "chat", "nothing for a minute")

    assert attempts == 1
    assert reason.startswith("no answer within 10")
    assert CHAT_S - 4 < request["ended"] - request["began"] < CHAT_S + 5


def test_the_budget_covers_all_attempts(run: Ran) -> None:
    requests = run.of("patient")
    attempts, reason = failure_of(run, "patient")

    assert len(requests) == attempts > 2
    assert requests[-1]["began"] - requests[0]["began"] <= PATIENCE_S + 2
    assert "told to answer 503" in reason


def test_a_record_past_its_deadline_sends_no_request(run: Ran) -> None:
    attempts, reason = failure_of(run, "late")

    assert attempts == 0
    assert "deadline" in reason
    assert not sent(run, "chat", "too late already")


@pytest.mark.parametrize("record", ["skip", "e-skip"])
def test_a_record_with_an_empty_body_passes_unchanged(run: Ran, record: str) -> None:
    assert run.record(record) == RECORDS[record]


def test_headers_carry_tenant_priority_and_deadline(run: Ran) -> None:
    node = Call("chat", "in", chats().spec, capacity=1, timeout_s=1, admission=Admission("acme"))
    for id_, tenant, priority in (("plain", "acme", "normal"), ("own", "zeta", "high")):
        (request,) = sent(run, "chat", json.dumps(text_of(id_)))
        headers, wanted = request["headers"], call_headers(JOB, node, RECORDS[id_])

        assert {name: headers.get(name) for name in wanted} == wanted
        assert (headers["x-sage-tenant"], headers["x-sage-priority"]) == (tenant, priority)
        left_s = int(headers["x-sage-deadline-ms"]) / 1000 - request["began"]
        assert 580 < left_s <= 601
        assert headers.get("authorization") == (f"Bearer {run.key}" if run.key else None)
        assert headers["content-type"] == "application/json"


def test_an_ordered_call_keeps_the_order(run: Ran) -> None:
    ids = [record.id for record in run.answered["ordered"]]

    assert ids == [f"o{n:02}" for n in range(24) if n != 13]
    assert "o13" in run.failed


def test_an_unordered_call_emits_fast_records_before_slow_ones(run: Ran) -> None:
    ids = [record.id for record in run.answered["chat"]]

    assert ids.index("plain") < ids.index("pause")


def test_no_more_than_capacity_are_in_flight(run: Ran) -> None:
    requests = run.of("ordered")
    moments = [(r["began"], 1) for r in requests] + [(r["ended"], -1) for r in requests]

    in_flight = peak = 0
    for _, change in sorted(moments):
        in_flight += change
        peak = max(peak, in_flight)
    assert 2 <= peak <= CAPACITY


def test_texts_are_batched_up_to_the_limit(run: Ran) -> None:
    sizes = [len(request["asked"]["input"]) for request in run.of("embed")]

    assert max(sizes) == ITEMS_MAX


@pytest.mark.parametrize("kind", POISON + BROKEN)
def test_a_poison_item_fails_alone_with_its_reason(run: Ran, kind: str) -> None:
    attempts, reason = failure_of(run, f"e-{kind}")
    requests = sent(run, "broken" if kind in BROKEN else "embed", f"poison by {kind}")

    # How often a request of a broken connection was sent depends on which connection was free.
    assert attempts == len(requests) or kind in BROKEN
    assert reason == f"told to answer {kind}" if kind.isdigit() else len(reason) > 10
    assert requests[-1]["asked"]["input"] == [text_of(f"e-{kind}")]


def test_the_neighbours_of_a_poison_item_get_their_vectors(run: Ran, engine: MockEngine) -> None:
    assert is_embedded(run, engine, *(f"n{n:02}" for n in range(27)), *(f"b{n}" for n in range(6)))


@pytest.mark.parametrize(
    "record",
    ["e-shuffled", "e-20-mb", "e-once", "e-pause", *(f"e-busy-{kind}" for kind in BUSY)],
)
def test_a_text_that_can_be_embedded_is_embedded(run: Ran, engine: MockEngine, record: str) -> None:
    assert is_embedded(run, engine, record)


@pytest.mark.parametrize(
    ("kind", "said"), [("dim=7", "dimension 7"), ("nan", "finite"), ("one_few", "no embedding")]
)
def test_a_bad_vector_fails_its_text_only(
    run: Ran, engine: MockEngine, kind: str, said: str
) -> None:
    assert said in failure_of(run, f"v-{kind}")[1]
    assert is_embedded(run, engine, *(f"v{n:02}" for n in range(12)))


def test_tenants_and_priorities_never_share_a_request(run: Ran) -> None:
    record_of = {record.value["text"]: record for record in apart().records}
    for request in run.of("apart"):
        records = [record_of[text] for text in request["asked"]["input"]]
        owners = {(r.headers["sage-tenant"], r.headers["sage-priority"]) for r in records}
        named = (request["headers"]["x-sage-tenant"], request["headers"]["x-sage-priority"])

        assert owners == {(named[0].encode(), named[1].encode())}
        assert int(request["headers"]["x-sage-deadline-ms"]) / 1000 > request["began"]


def test_batches_stay_below_tokens_max(run: Ran) -> None:
    sizes = [len("".join(request["asked"]["input"])) / 4 for request in run.of("apart")]

    assert max(sizes) <= TOKENS_MAX
    assert len(run.answered["apart"]) == 24


def test_a_text_that_hangs_fails_alone(run: Ran, engine: MockEngine) -> None:
    assert failure_of(run, "h-nothing")[1].startswith("no answer within 8")
    assert is_embedded(run, engine, *(f"h{n}" for n in range(7)))


def test_request_ids_are_the_same_again_and_one_gateway_may_be_away(
    run: Ran, target: str, engine: MockEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = {r["headers"].get("x-request-id") for r in run.of("ordered")}
    engine.reset()
    both = f"http://127.0.0.1:9,{engine.url}"

    again = ran(TARGETS[target], [in_order()], engine, tmp_path_factory.mktemp("again"), url=both)

    node = Call("ordered", "in", in_order().spec, capacity=1, timeout_s=1)
    asked_about = [r for r in in_order().records if "skip" not in r.value]
    assert {r["headers"].get("x-request-id") for r in again.of("ordered")} == before
    assert before == {request_id(JOB, node, record) for record in asked_about}
    assert len(again.answered["ordered"]) == 23

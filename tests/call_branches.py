"""The records of the tests of calls, and what became of each: its text scripts the engine."""

import hashlib
from functools import cache
from typing import Any

import httpx
from call_targets import Branch, RunResult

import sage_flink as sage
from benchmark_sage.mock_engine import MockEngine
from sage_flink.common import Record
from sage_flink.common.values import require_mapping
from sage_flink.flow import Admission, Batching, Retry
from sage_flink.inference import Chat, Embed

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
        *(once(kind) for kind in TRANSIENT if kind not in BROKEN),
        *(call_record(f"always-{kind}", f"[[{kind}]] {kind} always") for kind in TRANSIENT + FINAL),
    ]
    admission = Admission(tenant="acme", slack_s=600.0)
    call = {"timeout_s": CHAT_S, "retry": Retry(ATTEMPTS), "admission": admission}
    return Branch("chat", SilentChat("chat"), tuple(records), {"capacity": 64, **call})


def once(kind: str) -> Record:
    return call_record(f"once-{kind}", f"[[{kind} first=1]] {kind} once")


def lost_connections() -> Branch:
    """Calls whose first connection ends; without others, of which a connection could be reused."""
    call = {"capacity": 8, "timeout_s": CHAT_S, "retry": Retry(ATTEMPTS)}
    return Branch("lost", sage.chat(model="lost"), tuple(map(once, BROKEN)), call)


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
    lost_connections(),
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


@cache
def vector_of(engine: MockEngine, text: str) -> bytes:
    """The engine's vector of the text, from an engine that may not have the run behind it."""
    from sage_flink.flow.calls import embeddings

    request = embeddings.request("reference", [text])
    answer = httpx.post(f"{engine.url}/v1/embeddings", content=request, timeout=60, verify=False)
    if answer.is_error:  # the fault of a first request
        answer = httpx.post(
            f"{engine.url}/v1/embeddings", content=request, timeout=60, verify=False
        )
    (vector,) = embeddings.read("reference", answer.content, 1)
    assert isinstance(vector, bytes)
    return vector

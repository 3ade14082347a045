"""Broadcast joins: what an author writes, what becomes of a record."""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pytest

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import FailedRecord, PipelineError, Record
from sage_flink.common.dead_letters import from_message, to_message
from sage_flink.common.values import require_field
from sage_flink.flow import (
    BroadcastJoin,
    Count,
    Graph,
    Stream,
    Tumbling,
    check,
    explain,
    from_yaml,
    lists,
    to_yaml,
)
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.replay import replay
from sage_flink.inference.memory import EchoPool
from sage_flink.platform.record_accounting import CountedStep, CounterSnapshot, balance

DAY_MS = 1_700_000_000_000


def request(number: int, **value: Any) -> Record:
    id_ = f"requests/0/{number}"
    return Record(id_, {"n": number, **value}, DAY_MS + number, b"key", {"h": b"1"}, id_)


def row(number: int, key: bytes | None, value: Any) -> Record:
    return Record(f"rules/0/{number}", value, key=key, origin=f"rules/0/{number}")


def delete(number: int, key: bytes) -> Record:
    return row(number, key, None).replace(kind="delete", document=key.decode())


def read(name: str, *records: Record) -> Stream:
    return sage.flow.read(name, ListSource(records))


def run(*branches: Graph, **options: Any) -> Any:
    return asyncio.run(sage.flow.run(sage.flow.pipeline(*branches), **options))


def joined(requests: list[Record], rules: list[Record], **options: Any) -> Any:
    stream = read("requests", *requests).broadcast_join("rules", read("rows", *rules), **options)
    return run(stream.write("out", ListSink()))


def test_a_record_keeps_all_and_has_the_rows_and_their_version_in_one_more_field() -> None:
    rules = [row(1, b"b", {"limit": 5}), row(2, b"a", {"limit": 1}), row(3, b"b", {"limit": 6})]

    outcome = joined([request(1, rules="old")], rules)

    rows = {"a": {"limit": 1}, "b": {"limit": 6}}
    expected = request(1, rules={"version": 3, "rows": rows})
    assert outcome.written["out"] == [expected]
    assert list(outcome.written["out"][0].value["rules"]["rows"]) == ["a", "b"]


def test_a_field_names_the_one_row_of_a_record() -> None:
    rules = [row(1, b"anna", {"limit": 5}), row(2, b"7", {"limit": 7})]
    requests = [
        request(1, user={"id": "anna"}),
        request(2, user={"id": 7}),
        request(3, user={"id": "bert"}),
        request(4, user={}),
        request(5, user={"id": [1]}),
    ]

    outcome = joined(requests, rules, field="user.id", into="rule")

    assert [record.value["rule"] for record in outcome.written["out"]] == [
        {"version": 2, "row": {"limit": 5}},
        {"version": 2, "row": {"limit": 7}},
        {"version": 2, "row": None},
    ]
    assert [failed.reason for failed in outcome.failed] == [
        "it has no key: no value at 'user.id'",
        "it has no key: 'user.id' must be text, bytes, a whole number or a boolean",
    ]


def test_rows_begin_with_the_initial_ones_which_a_change_replaces_and_a_delete_ends() -> None:
    initial = {"a": {"n": 1}, "b": {"n": 2}}

    before = joined([request(1)], [], initial=initial)
    after = joined([request(1)], [row(1, b"a", {"n": 3}), delete(2, b"b")], initial=initial)

    assert before.written["out"][0].value["rules"] == {"version": 0, "rows": initial}
    assert after.written["out"][0].value["rules"] == {"version": 2, "rows": {"a": {"n": 3}}}


def test_a_change_that_cannot_be_read_is_one_dead_letter_and_changes_nothing() -> None:
    half = {"text": "x" * 6_000_000}
    rules = [
        row(1, b"a", {"n": 1}),
        row(2, None, {"n": 2}),
        row(3, b"\xff", {"n": 2}),
        row(4, b"a", "no map"),
        row(5, b"a", None),
        row(6, b"x" * 5_000, {}),
        row(7, b"large", half),
        row(8, b"larger", half),
        row(9, b"large", {}),
    ]

    outcome = joined([request(1)], rules)

    rows = {"a": {"n": 1}, "large": {}}
    assert outcome.written["out"][0].value["rules"] == {"version": 3, "rows": rows}
    assert {failed.step for failed in outcome.failed} == {"rules"}
    assert [(failed.id[-1], failed.reason) for failed in outcome.failed] == [
        ("2", "has no key: put .key_by(name, field) before this step"),
        ("3", "its key is not text in UTF-8"),
        ("4", "its value must be a map, the row of its key"),
        ("5", "its value must be a map, the row of its key"),
        ("6", "its key has 5000 bytes, at most 4096 are a key"),
        (
            "8",
            "with it all rows would have 12000038 bytes, at most 10000000 are kept in each subtask",
        ),
    ]


def test_a_record_that_is_no_map_is_a_dead_letter() -> None:
    outcome = joined([request(1).replace(value="text")], [row(1, b"a", {})])

    assert [failed.reason for failed in outcome.failed] == [
        "its value must be a map, to take the field 'rules'"
    ]
    assert outcome.written["out"] == []


@dataclass(frozen=True)
class Ask:
    """A completion by the model and with the prompt that the record's version names."""

    model: str = "by version"
    mode: Literal["post"] = "post"
    path: str = "/v1/completions"

    def request(self, record: Record) -> bytes:
        ask = record.value["rollout"]["rows"]["ask"]
        prompt = f"{ask['prompt']}{require_field(record, 'question', str)}"
        return msgspec.json.encode({"model": ask["model"], "prompt": prompt})

    def answer(self, record: Record, body: bytes) -> Record:
        reply = msgspec.json.decode(body)
        used = {"model": reply["model"], "answer": reply["choices"][0]["text"]}
        return record.replace(value={"version": record.value["rollout"]["version"], **used})


def test_model_and_prompt_are_rolled_out_and_switched_back_together() -> None:
    """One source, so that requests and versions come in the order that is written here."""
    old, new = {"model": "small", "prompt": "Briefly: "}, {"model": "large", "prompt": "Well: "}
    events = [
        request(1, question="Why?"),
        row(1, b"ask", new),
        request(2, question="How?"),
        row(2, b"ask", old),
        request(3, question="Why?"),
    ]
    source = read("events", *events)
    versions = source.filter("versions", lambda record: "model" in record.value)
    requests = source.filter("questions", lambda record: "question" in record.value)

    rollout = requests.broadcast_join("rollout", versions, initial={"ask": old})
    asked = rollout.call("ask", Ask(), capacity=1, timeout_s=5, ordered=True)
    outcome = run(asked.write("out", ListSink()), pool=EchoPool())

    assert outcome.failed == []
    assert [record.value for record in outcome.written["out"]] == [
        {"version": 0, "model": "small", "answer": "Briefly: Why?"},
        {"version": 1, "model": "large", "answer": "Well: How?"},
        {"version": 2, "model": "small", "answer": "Briefly: Why?"},
    ]


def test_event_time_is_that_of_the_records_alone() -> None:
    timed = read("requests", *(request(n * 100) for n in range(30))).event_time(
        "time", out_of_order_s=0.1
    )
    stream = timed.broadcast_join("rules", read("rows", row(1, b"a", {})))

    outcome = run(stream.window("n", Tumbling(1), {"n": Count()}).write("out", ListSink()))

    assert [record.value["n"] for record in outcome.written["out"]] == [10, 10, 10]
    other = read("plain").broadcast_join("rules", timed)
    with pytest.raises(PipelineError, match="'n': needs event time"):
        check(other.window("n", Tumbling(1)).write("out", ListSink()), "local")


def test_deletes_on_the_left_are_forwarded_and_those_of_rows_are_not() -> None:
    requests = [request(1), delete(2, b"document")]

    outcome = joined(requests, [row(1, b"a", {}), delete(2, b"a")])

    assert outcome.failed == []
    assert [record.value["rules"]["version"] for record in outcome.written["out"]] == [2]


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"changes": None}, "changes must be a stream"),
        ({"changes": read("requests")}, "another step than left"),
        ({"field": "a..b"}, "the path of a field"),
        ({"into": 5}, "the name of a field"),
        ({"initial": []}, "initial must be rows"),
        ({"initial": {"a": 1}}, "initial must be rows"),
        ({"initial": {"a": {"b": object()}}}, "initial must be rows"),
        ({"initial": {"a": {"b": "x" * 10_000_001}}}, "initial must be rows"),
    ],
)
def test_what_cannot_run_is_refused_where_it_is_written(change: Any, flaw: str) -> None:
    options = {"changes": read("rows"), **change}

    with pytest.raises(PipelineError, match=flaw):
        read("requests").broadcast_join("rules", **options)


YAML = """
steps:
- read: requests
  from: {list_source: {rows: []}}
- read: rows
  from: {list_source: {rows: []}}
- broadcast_join: rules
  left: requests
  right: rows
  into: rule
  field: user.id
  initial:
    anna: {limit: 5}
- write: out
  input: rules
  into: {list_sink: {}}
"""
WORDS = {"list_source": lists.ListSource, "list_sink": lists.ListSink}


def test_the_yaml_form_says_all_of_it() -> None:
    graph = check(from_yaml(YAML, WORDS), "local")

    node = BroadcastJoin("rules", "requests", "rows", "rule", "user.id", {"anna": {"limit": 5}})
    assert graph.by_name["rules"] == node
    assert from_yaml(to_yaml(graph, WORDS), WORDS) == graph
    assert (
        "rules     broadcast_join  <- requests, rows; the row that user.id names of rows into rule;"
        " changes at a checkpoint"
    ) in explain(graph)
    with pytest.raises(PipelineError, match="'rules': initial must be"):
        from_yaml(YAML.replace("anna: {limit: 5}", "anna: 5"), WORDS)
    with pytest.raises(PipelineError, match="'rules': needs a field `right:`"):
        from_yaml(YAML.replace("  right: rows\n", ""), WORDS)


def test_a_replay_through_the_join_is_refused() -> None:
    requests = read("requests").map("clean", lambda record: record.value)
    graph = requests.broadcast_join("rules", read("rows")).write("out", kafka("out"))
    message = to_message(FailedRecord(request(1), "clean", "it failed"), "job")

    done = replay(graph.dead_letters_to(kafka("dead")), [from_message(message.replace(id="d/0/1"))])

    assert done.graph is None
    assert "'rules' would not have the state that the job has" in done.skipped[0].reason


STEPS = (
    CountedStep("requests", "read", ()),
    CountedStep("rows", "read", ()),
    CountedStep("rules", "broadcast_join", ("requests", "rows")),
    CountedStep("out", "write", ("rules",)),
    CountedStep("dead-letters", "dead_letters", ()),
)
COUNTS = {
    "requests.read": 9,
    "requests.emitted": 9,
    "rows.read": 5,
    "rows.emitted": 5,
    "rules.left_read": 9,
    "rules.right_read": 5,
    "rules.emitted": 7,
    "rules.changes": 4,
    "rules.dead_lettered": 3,
    "out.read": 7,
    "out.written": 7,
    "dead-letters.read": 3,
    "dead-letters.written": 3,
}


def test_what_came_in_is_emitted_a_change_or_a_dead_letter() -> None:
    found = balance(STEPS, CounterSnapshot(COUNTS))
    missing = [
        balance(STEPS, CounterSnapshot({**COUNTS, name: n - 1})) for name, n in COUNTS.items()
    ]

    assert found.is_balanced, found.gaps
    assert not any(one.is_balanced for one in missing)
    less = balance(STEPS, CounterSnapshot({**COUNTS, "rules.changes": 3}))
    assert less.gaps == ("rules: 14 read, 7 emitted + 3 dead-lettered + 3 changes (1 missing)",)

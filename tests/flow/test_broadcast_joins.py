"""Broadcast joins: which rows a record has, and what becomes of a change."""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pytest
from join_records import read, request

import sage_flink as sage
from sage_flink.common import PipelineError, Record
from sage_flink.common.values import require_field
from sage_flink.flow import (
    Count,
    Graph,
    Tumbling,
    check,
)
from sage_flink.flow.lists import ListSink
from sage_flink.inference.memory import EchoPool


def row(number: int, key: bytes | None, value: Any) -> Record:
    return Record(f"rules/0/{number}", value, key=key, origin=f"rules/0/{number}")


def delete(number: int, key: bytes) -> Record:
    return row(number, key, None).replace(kind="delete", document=key.decode())


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

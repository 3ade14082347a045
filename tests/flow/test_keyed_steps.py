"""Steps with state for each key: what an author writes, what becomes of a record."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import FailedRecord, PipelineError, Record
from sage_flink.common.dead_letters import from_message, to_message
from sage_flink.flow import (
    ChangesOnly,
    RateLimit,
    Stream,
    check,
    explain,
    from_yaml,
    lists,
    to_yaml,
    vocabulary,
)
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.replay import replay
from sage_flink.operators import DropDeletes
from sage_flink.platform.record_accounting import (
    CountedStep,
    CounterSnapshot,
    balance,
)

DAY_MS = 1_700_000_000_000
KEYS = (b"a", b"b")


def event(number: int, value: Any, *, key: bytes | None = b"k", ms: int = 0) -> Record:
    id_ = f"t/0/{number}"
    return Record(id_, value, DAY_MS + ms, key, origin=id_)


def stream(*records: Record) -> Stream:
    return sage.flow.read("in", ListSource(records))


def run(branch: Stream) -> Any:
    return asyncio.run(sage.flow.run(branch.write("out", ListSink())))


def passed(branch: Stream) -> list[Any]:
    return [record.value for record in run(branch).written["out"]]


def test_only_changes_of_a_key_pass() -> None:
    values = [(b"a", 1), (b"b", 1), (b"a", 1), (b"a", 2), (b"b", 1), (b"a", 1), (b"a", None)]
    records = [event(n, value, key=key) for n, (key, value) in enumerate(values)]

    out = run(stream(*records).changes_only("changes")).written["out"]

    expected = [(b"a", 1), (b"b", 1), (b"a", 2), (b"a", 1), (b"a", None)]
    assert [(record.key, record.value) for record in out] == expected
    assert [record.id for record in out] == [f"t/0/{n}" for n in (0, 1, 3, 5, 6)]


@pytest.mark.parametrize(
    ("field", "values", "kept"),
    [
        ("a.b", [{"a": {"b": 1}}, {"a": {"b": 1}, "c": 2}, {"a": {"b": 2}}], [0, 2]),
        ("a.b", [{}, {"a": None}, {"a": {"b": None}}, {"a": 5}], [0]),
        ("", [1, 1.0, True], [0, 1, 2]),
        ("", [{"a": 1, "b": 2}, {"a": 1, "b": 2}, {"b": 2, "a": 1}], [0, 2]),
        ("", ["x" * 1_000, "x" * 1_000, "x" * 999 + "y"], [0, 2]),
    ],
)
def test_values_are_equal_where_their_messagepack_is(field: str, values: Any, kept: Any) -> None:
    records = [event(number, value) for number, value in enumerate(values)]

    assert passed(stream(*records).changes_only("changes", field)) == [values[n] for n in kept]


def test_an_unchanged_value_passes_again_after_the_ttl() -> None:
    slow = stream(event(0, 1), event(1, 1)).map("slowly", lambda r: time.sleep(0.05) or r.value)

    assert passed(slow.changes_only("changes", ttl_s=0.001)) == [1, 1]
    assert passed(slow.changes_only("changes", ttl_s=60)) == [1]


def limited(*records: Record, over: Any = "drop", records_max: int = 2) -> Stream:
    timed = stream(*records).event_time("time", out_of_order_s=5)
    return timed.rate_limit("limit", records_max=records_max, per_s=10, over=over)


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 40)), max_size=40))
def test_so_many_records_of_each_key_and_time_pass_whatever_their_order(events: Any) -> None:
    # Disorder of more than the whole time: nothing is late.
    records = [event(n, s, key=key, ms=s * 1000) for n, (key, s) in enumerate(events)]
    timed = stream(*records).event_time("time", out_of_order_s=100)

    out = run(timed.rate_limit("limit", records_max=2, per_s=10)).written["out"]

    read = Counter((r.key, r.timestamp_ms // 10_000) for r in records)
    emitted = Counter((r.key, r.timestamp_ms // 10_000) for r in out)
    assert emitted == {window: min(2, count) for window, count in read.items()}


def test_what_is_over_the_limit_is_dropped_or_a_dead_letter() -> None:
    records = [event(n, n, ms=n) for n in range(4)]

    assert run(limited(*records)).failed == []
    assert passed(limited(*records)) == [0, 1]
    failed = run(limited(*records, over="dead_letter")).failed
    assert [(letter.id, letter.step) for letter in failed] == [
        ("t/0/2", "limit"),
        ("t/0/3", "limit"),
    ]
    reason = "is over the limit: 2 records of its key have passed in the same 10 s"
    assert failed[0].reason == reason


def test_a_record_whose_time_is_over_does_not_count_again() -> None:
    records = [event(0, "a", ms=0), event(1, "b", ms=30_000), event(2, "c", ms=1)]

    failed = run(limited(*records, over="dead_letter")).failed

    assert [letter.reason[:40] for letter in failed] == ["is late: the watermark had passed the en"]
    assert passed(limited(*records)) == ["a", "b"]


@pytest.mark.parametrize("verb", ["changes_only", "rate_limit"])
def test_a_record_without_a_key_is_a_dead_letter(verb: str) -> None:
    records = [event(0, 1, key=None), event(1, 1, key=b"x" * 4_097), event(2, 1)]
    timed = stream(*records).event_time("time", out_of_order_s=1)

    outcome = run(step(timed, verb))

    assert [record.id for record in outcome.written["out"]] == ["t/0/2"]
    assert [letter.reason for letter in outcome.failed] == [
        "has no key: put .key_by(name, field) before this step",
        "its key has 4097 bytes, at most 4096 are a key",
    ]


def step(before: Stream, verb: str) -> Stream:
    if verb == "changes_only":
        return before.changes_only("s")
    return before.rate_limit("s", records_max=1, per_s=1)


@pytest.mark.parametrize("verb", ["changes_only", "rate_limit"])
def test_deletes_do_not_reach_a_keyed_step(verb: str) -> None:
    deletes = stream(Record("d", None, DAY_MS, kind="delete", document="x"))
    timed = deletes.event_time("time", out_of_order_s=1)

    with pytest.raises(PipelineError, match="'s': takes no deletes"):
        check(step(timed, verb).write("out", ListSink()), "local")
    check(step(timed.flat_map("upserts", DropDeletes()), verb).write("out", ListSink()), "local")


@pytest.mark.parametrize(
    ("build", "flaw"),
    [
        (lambda s: s.changes_only("c", "a..b"), "the path of a field"),
        (lambda s: s.changes_only("c", ttl_s=0), "0.001 or more"),
        (lambda s: s.rate_limit("r", records_max=0, per_s=1), "records_max must be at least 1"),
        (lambda s: s.rate_limit("r", records_max=1.5, per_s=1), "a whole number"),
        (lambda s: s.rate_limit("r", records_max=1, per_s=0), "0.001 or more"),
        (lambda s: s.rate_limit("r", records_max=1, per_s=1, over="wait"), "'drop' or"),
        (lambda s: s.rate_limit("r", records_max=1, per_s=1), "needs event time"),
    ],
)
def test_what_cannot_run_is_refused_where_it_is_written(build: Any, flaw: str) -> None:
    with pytest.raises(PipelineError, match=flaw):
        check(build(stream()).write("out", ListSink()), "local")


YAML = """
steps:
- read: in
  from: {list_source: {rows: []}}
- event_time: time
  input: in
  out_of_order_s: 5.0
- changes_only: changes
  input: time
  field: order.state
  ttl_s: 60.0
- rate_limit: limit
  input: changes
  records_max: 3
  per_s: 10.0
  over: dead_letter
- write: out
  input: limit
  into: {list_sink: {}}
"""
WORDS = {"list_source": lists.ListSource, "list_sink": lists.ListSink, **vocabulary()}


def test_the_yaml_form_says_all_of_it() -> None:
    graph = from_yaml(YAML, WORDS)

    assert graph.by_name["changes"] == ChangesOnly("changes", "time", "order.state", 60.0)
    assert graph.by_name["limit"] == RateLimit("limit", "changes", 3, 10.0, "dead_letter")
    assert from_yaml(to_yaml(graph, WORDS), WORDS) == graph
    assert "changes of order.state, or after 60 s" in explain(graph)
    assert "3 a key in 10 s; others: dead letters" in explain(graph)


@pytest.mark.parametrize(
    ("was", "becomes", "flaw"),
    [
        ("over: dead_letter", "over: block", "over must be one of 'drop', 'dead_letter'"),
        ("per_s: 10.0", "per_m: 1", "unknown field 'per_m'"),
        ("  per_s: 10.0\n", "", "needs a field `per_s:`"),
        ("ttl_s: 60.0", "ttl_s: soon", "ttl_s must be"),
    ],
)
def test_a_wrong_word_in_yaml_names_step_and_field(was: str, becomes: str, flaw: str) -> None:
    with pytest.raises(PipelineError, match=flaw):
        from_yaml(YAML.replace(was, becomes), WORDS)


def test_records_that_a_step_drops_are_counted() -> None:
    steps = [CountedStep("in", "read", ()), CountedStep("c", "changes_only", ("in",))]
    counts = {"in.read": 5, "in.emitted": 5, "c.read": 5, "c.emitted": 2, "c.dropped": 2}

    even = balance(steps, CounterSnapshot({**counts, "c.dropped": 3}))
    odd = balance(steps, CounterSnapshot(counts))

    assert even.is_balanced
    assert even.rows[1].dropped == 3
    assert odd.gaps == ("c: 5 read, 2 emitted + 0 dead-lettered + 2 dropped (1 missing)",)


def test_a_replay_does_not_pass_a_step_that_would_lack_the_state_of_the_job() -> None:
    graph = stream().map("parse", len).changes_only("c").write("out", ListSink())
    failed = FailedRecord(event(0, 1), "parse", "why")
    letter = from_message(to_message(failed, "job").replace(id="dead/0/0"))

    (skipped,) = replay(graph.dead_letters_to(kafka("job.dead-letters")), [letter]).skipped

    assert skipped.reason == (
        "behind step 'parse' the step 'c' would not have the state that the job has; feed it to "
        "the source again"
    )

"""Temporal joins of a stream with a changelog: what an author writes, what becomes of a record."""

import asyncio
from typing import Any

import pytest
from minicluster import FileSink

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import FailedRecord, PipelineError, Record
from sage_flink.common.dead_letters import from_message, to_message
from sage_flink.flow import (
    Count,
    Graph,
    Stream,
    TemporalJoin,
    Tumbling,
    check,
    explain,
    from_yaml,
    lists,
    to_yaml,
)
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.replay import replay
from sage_flink.operators import DropDeletes

DAY_MS = 1_700_000_000_000


def trade(number: int, ms: int, value: Any = None) -> Record:
    id_ = f"trades/0/{number}"
    return Record(id_, value or {"n": number}, DAY_MS + ms, b"eur", {"h": b"1"}, id_)


def rate(ms: int, value: Any, key: bytes = b"eur") -> Record:
    return Record(f"rates/0/{ms}/{value}", value, DAY_MS + ms, key)


def delete(ms: int) -> Record:
    return Record(f"rates/0/{ms}/d", None, DAY_MS + ms, b"eur", kind="delete", document="eur")


def stream(name: str, *records: Record) -> Stream:
    source = sage.flow.read(name, ListSource(records))
    return source.event_time(f"{name}-time", out_of_order_s=0.1)


def run(*branches: Graph) -> Any:
    return asyncio.run(sage.flow.run(sage.flow.pipeline(*branches)))


def joined(trades: list[Record], rates: list[Record], **options: Any) -> Any:
    rated = stream("trades", *trades).temporal_join("rated", stream("rates", *rates), **options)
    return run(rated.write("out", ListSink()))


def test_a_record_keeps_all_but_its_value_and_has_the_version_of_its_time() -> None:
    outcome = joined([trade(1, 150)], [rate(100, 1.1), rate(200, 1.2)])

    assert outcome.written["out"] == [
        trade(1, 150, {"left": {"n": 1}, "right": 1.1}),
    ]


@pytest.mark.parametrize(
    ("ms", "version"), [(99, None), (100, 1.1), (149, 1.1), (150, None), (249, None), (250, 1.3)]
)
def test_a_version_is_valid_from_its_time_until_the_next_version_or_delete(
    ms: int, version: float | None
) -> None:
    rates = [rate(100, 1.1), delete(150), rate(250, 1.3)]

    inner, left = (joined([trade(1, ms)], rates, how=how) for how in ("inner", "left"))

    assert [r.value["right"] for r in left.written["out"]] == [version]
    assert [r.value["right"] for r in inner.written["out"]] == [version] * (version is not None)
    assert left.failed == inner.failed == []


def test_versions_may_arrive_in_any_order_and_of_one_time_the_last_arrival_is_valid() -> None:
    rates = [rate(200, "c"), rate(100, "a"), rate(150, "b"), rate(150, "b again"), rate(160, "x")]
    trades = [trade(4, 220), trade(1, 120), trade(2, 155), trade(3, 199)]

    outcome = joined(trades, [*rates, rate(110, "d", b"usd")])

    found = {record.value["left"]["n"]: record.value["right"] for record in outcome.written["out"]}
    assert found == {1: "a", 2: "b again", 3: "x", 4: "c"}


@pytest.mark.parametrize(
    ("late", "ends"), [("dead_letter", {"failed"}), ("drop", set()), ("read", {"late-out"})]
)
def test_late_records_of_both_inputs_go_where_the_author_says(late: Any, ends: set[str]) -> None:
    trades = stream("trades", trade(1, 150), trade(2, 9_000), trade(3, 160))
    rates = stream("rates", rate(100, 1.1), rate(9_000, 1.2), rate(120, 1.3))
    way = "drop" if late == "drop" else "dead_letter"
    rated = trades.temporal_join("rated", rates, late=way)
    branches = [rated.write("out", ListSink())]
    if late == "read":
        branches.append(rated.late("late").write("late-out", ListSink()))

    outcome = run(*branches)

    late_records = [*outcome.written.get("late-out", []), *(f.record for f in outcome.failed)]
    assert sorted(r.id for r in late_records) == ["rates/0/120/1.3", "trades/0/3"] * len(ends)
    assert bool(outcome.failed) is ("failed" in ends)
    assert [r.value["right"] for r in outcome.written["out"]] == [1.1, 1.2]
    assert all("had passed its time" in failed.reason for failed in outcome.failed)


def test_no_result_is_late_for_a_window_behind_the_join() -> None:
    trades = [trade(n, n * 100) for n in range(50)]
    rates = [rate(n * 300, n) for n in range(1, 15)]
    rated = stream("trades", *trades).temporal_join("rated", stream("rates", *rates), how="left")

    outcome = run(rated.window("n", Tumbling(1), {"n": Count()}).write("out", ListSink()))

    assert outcome.failed == []
    assert sum(record.value["n"] for record in outcome.written["out"]) == 50


def test_what_no_keyed_step_takes_is_a_dead_letter_and_so_is_a_delete_on_the_left() -> None:
    no_key = trade(1, 0).replace(key=None)
    huge_key = rate(0, 1.0, b"x" * 5_000)

    outcome = joined([no_key], [huge_key, rate(1, 2.0).replace(key=None)])

    reasons = sorted(failed.reason for failed in outcome.failed)
    assert reasons == [
        "has no key: put .key_by(name, field) before this step",
        "has no key: put .key_by(name, field) before this step",
        "its key has 5000 bytes, at most 4096 are a key",
    ]
    deletes = stream("trades", delete(0))
    with pytest.raises(PipelineError, match="'rated': takes no deletes"):
        check(deletes.temporal_join("rated", stream("rates")).write("o", ListSink()), "local")
    upserts = deletes.flat_map("upserts", DropDeletes())
    check(upserts.temporal_join("rated", stream("rates")).write("o", ListSink()), "local")


def test_deletes_of_the_changelog_do_not_reach_the_sink() -> None:
    graph = stream("trades").temporal_join("rated", stream("rates", delete(0)))

    check(graph.write("out", FileSink("out")), "local")
    late = graph.late("late").write("late-out", FileSink("late"))
    with pytest.raises(PipelineError, match="'late-out': FileSink does not support deletes"):
        check(sage.flow.pipeline(graph.write("out", ListSink()), late), "local")


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"how": "full"}, "'inner' or 'left'"),
        ({"late": "keep"}, "'dead_letter' or 'drop'"),
        ({"versions": None}, "versions must be a stream"),
        ({"versions": stream("trades")}, "another step than left"),
        ({"versions": sage.flow.read("plain", ListSource(()))}, "needs event time"),
    ],
)
def test_what_cannot_run_is_refused_where_it_is_written(change: Any, flaw: str) -> None:
    options = {"versions": stream("rates"), **change}

    with pytest.raises(PipelineError, match=flaw):
        check(stream("trades").temporal_join("r", **options).write("out", ListSink()), "local")


YAML = """
steps:
- read: trades
  from: {list_source: {rows: []}}
- event_time: trades-time
  input: trades
  out_of_order_s: 5.0
- read: rates
  from: {list_source: {rows: []}}
- event_time: rates-time
  input: rates
  out_of_order_s: 5.0
- temporal_join: rated
  left: trades-time
  right: rates-time
  how: left
- late: late
  input: rated
- write: out
  input: rated
  into: {list_sink: {}}
- write: late-out
  input: late
  into: {list_sink: {}}
"""
WORDS = {"list_source": lists.ListSource, "list_sink": lists.ListSink}


def test_the_yaml_form_says_all_of_it() -> None:
    graph = check(from_yaml(YAML, WORDS), "local")

    assert graph.by_name["rated"] == TemporalJoin("rated", "trades-time", "rates-time", "left")
    assert from_yaml(to_yaml(graph, WORDS), WORDS) == graph
    assert (
        "rated        temporal_join  <- trades-time, rates-time; left; the version of rates-time at"
        " the time of trades-time; late records: to late"
    ) in explain(graph)
    with pytest.raises(PipelineError, match="'rated': how must be one of 'inner', 'left'"):
        from_yaml(YAML.replace("how: left", "how: full"), WORDS)


def test_a_replay_through_the_join_is_refused() -> None:
    trades = stream("trades").map("clean", lambda record: record.value)
    rated = trades.temporal_join("rated", stream("rates"))
    graph = rated.write("out", kafka("out")).dead_letters_to(kafka("dead"))
    message = to_message(FailedRecord(trade(1, 0), "clean", "it failed"), "job")

    done = replay(graph, [from_message(message.replace(id="dead/0/1"))])

    assert done.graph is None
    assert "'clean' the join 'rated' would have no record" in done.skipped[0].reason

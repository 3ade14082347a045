"""When windows emit what: early results, what an author writes for them, what is refused."""

import asyncio
import sys
from typing import Any

import pytest

import sage_flink as sage
from sage_flink.common import PipelineError, Record
from sage_flink.flow import (
    Collect,
    Count,
    CountDistinct,
    CountTumbling,
    Early,
    Global,
    Quantile,
    Session,
    Stream,
    Sum,
    Top,
    Tumbling,
    check,
    explain,
    from_yaml,
    to_yaml,
)
from sage_flink.flow import lists as list_ends
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.stateful.aggregates import in_json

#: A multiple of ten seconds.
START_MS = 1_700_000_000_000
WORDS = {"list_source": list_ends.ListSource, "list_sink": list_ends.ListSink}


EVERY_SECOND = Early(every_s=1)


def events(*times_ms: int, key: str = "a") -> list[Record]:
    return [
        Record(f"t/0/{key}-{n}", {"k": key, "n": n}, START_MS + ms, origin=f"t/0/{n}")
        for n, ms in enumerate(times_ms)
    ]


def keyed(*records: Record, out_of_order_s: float = 0.0) -> Stream:
    read = sage.flow.read("in", ListSource(records))
    return read.event_time("time", out_of_order_s=out_of_order_s).key_by("by-k", "k")


def results(stream: Stream) -> list[Record]:
    return asyncio.run(sage.flow.run(stream.write("out", ListSink()))).written["out"]


def early_and_count(records: list[Record]) -> list[tuple[bool, int]]:
    return [(record.value["early"], record.value["count"]) for record in records]


def test_a_window_emits_early_by_time_where_it_has_taken_a_record_and_once_a_watermark() -> None:
    passes_one, passes_three = events(0, 100, 1_200, 1_300, 4_900, 4_950, 11_000), events(0, 3_900)

    by_one = keyed(*passes_one).window("w", Tumbling(10), early=Early(every_s=1))
    by_three = keyed(*passes_three).window("w", Tumbling(10), early=Early(every_s=1))

    assert early_and_count(results(by_one)) == [
        (True, 3),  # with the first record behind the first second, which it holds too
        (True, 5),
        (False, 6),
        (False, 1),
    ]
    assert early_and_count(results(by_three)) == [(True, 2), (False, 2)]


def test_a_window_emits_early_with_every_so_many_records() -> None:
    windows = keyed(*events(*range(7))).window("w", Tumbling(10), early=Early(every_records=3))

    assert early_and_count(results(windows)) == [(True, 3), (True, 6), (False, 7)]


def test_sessions_that_become_one_count_their_records_together() -> None:
    times_ms = (0, 10, 2_000, 2_010, 1_000)  # the last one joins two sessions of two records
    stream = keyed(*events(*times_ms), out_of_order_s=5)

    windows = stream.window("w", Session(1), early=Early(every_records=5))

    assert early_and_count(results(windows)) == [(True, 5), (False, 5)]


def test_a_late_record_within_the_lateness_makes_a_result_that_is_not_early() -> None:
    late = keyed(*events(0, 5_000, 10))

    windows = late.window("w", Tumbling(1), lateness_s=10, early=Early(every_records=9))

    found = results(windows)
    assert early_and_count(found) == [(False, 1), (False, 2), (False, 1)]
    assert found[0].id == found[1].id


def test_results_have_no_field_early_in_a_step_without_such_results() -> None:
    (result,) = results(keyed(*events(0)).window("w", Tumbling(1)))

    assert [*result.value] == ["key", "start_ms", "end_ms", "count"]


def test_a_count_window_ends_with_its_last_record_and_needs_no_event_time() -> None:
    records = [*events(10, 30, 20, 5, 6), *events(40, key="b")]
    read = sage.flow.read("in", ListSource(records)).key_by("by-k", "k")

    found = results(read.window("w", CountTumbling(2), {"numbers": Collect("n")}))

    assert [record.id for record in found] == ["w/0/a", "w/1/a", "w/2/a", "w/0/b"]
    assert found[0].value == {
        "key": "a",
        "index": 0,
        "start_ms": START_MS + 10,
        "end_ms": START_MS + 31,
        "numbers": [0, 1],
    }
    assert [record.value["numbers"] for record in found[1:]] == [[3, 2], [4], [0]]
    assert found[1].timestamp_ms == START_MS + 20


def test_a_global_window_is_a_running_aggregate_under_one_id() -> None:
    read = sage.flow.read("in", ListSource(events(*range(5)))).key_by("by-k", "k")

    found = results(read.window("w", Global(), early=Early(every_records=2)))

    assert early_and_count(found) == [(True, 2), (True, 4), (False, 5)]
    assert {record.id for record in found} == {"w/a"}


def test_a_global_window_emits_early_by_time_behind_the_watermark_too() -> None:
    late = keyed(*events(0, 5_000, 10, 5_500, 6_000))

    found = results(late.window("w", Global(), early=Early(every_s=1)))

    assert early_and_count(found) == [(True, 2), (True, 5), (False, 5)]


def test_approximate_aggregates_of_few_values_are_the_exact_ones() -> None:
    read = sage.flow.read("in", ListSource(events(*range(700)))).key_by("by-k", "k")
    exact, approximate = (
        {
            "middle": Quantile("n", 0.5, approximate=is_approximate),
            "different": CountDistinct("k", approximate=is_approximate),
            "often": Top("n", 3, approximate=is_approximate),
        }
        for is_approximate in (False, True)
    )

    (one,) = results(read.window("w", CountTumbling(700), exact))
    (other,) = results(read.window("w", CountTumbling(700), approximate))

    assert one == other
    assert one.value["middle"] == 349.5


def test_a_run_without_the_library_of_sketches_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasketches", None)
    windows = keyed().window("w", Tumbling(1), {"p": Quantile("n", approximate=True)})

    with pytest.raises(PipelineError, match=r"'w': approximate .*sage-flink\[sketches\]"):
        check(windows.write("out", ListSink()), "local")


def test_exact_aggregates_are_written_as_before_so_that_savepoints_fit() -> None:
    assert in_json("p", Quantile("v")) == {"name": "p", "kind": "quantile", "field": "v", "q": 0.5}
    assert in_json("u", CountDistinct("v", approximate=True)) == {
        "name": "u",
        "kind": "approximate_count_distinct",
        "field": "v",
    }


def test_a_python_function_gets_the_records_of_a_window() -> None:
    def steps_up(window: Record) -> bool:
        numbers = [value["n"] for value in window.value["records"]]
        return numbers == sorted(numbers)

    windows = keyed(*events(0, 1, 2)).window("w", Tumbling(1), {"records": Collect()})

    assert [record.value for record in results(windows.map("steps-up", steps_up))] == [True]


@pytest.mark.parametrize(
    ("build", "flaw"),
    [
        (lambda: Early(), "set, one of the two"),
        (lambda: Early(every_s=1, every_records=1), "set, one of the two"),
        (lambda: Early(every_s=0), "0.001 or more"),
        (lambda: Early(every_records=0), "at least 1"),
        (lambda: keyed().window("w", Tumbling(1), early=5), "Early"),
        (lambda: CountTumbling(0), "at least 1"),
        (lambda: Quantile("v", approximate="yes"), "true or false"),
        (lambda: Top("v", 1_000, approximate=True), "at most 768 where approximate"),
        (lambda: keyed().window("w", CountTumbling(2), lateness_s=1), "0: no record is late"),
        (lambda: keyed().window("w", CountTumbling(2), late="drop"), "left out: no record is late"),
        (lambda: keyed().window("w", CountTumbling(2), {"index": Count()}), "a name other than"),
        (lambda: keyed().window("w", CountTumbling(2)).late("l"), "no record is late for CountT"),
        (lambda: keyed().window("w", Global()), "does not end before its input"),
        (
            lambda: sage.flow.read("in", ListSource(())).window("w", Global(), early=EVERY_SECOND),
            "needs event time",
        ),
        (
            lambda: keyed().window("w", Tumbling(1), {"early": Count()}, early=EVERY_SECOND),
            "a name other than",
        ),
    ],
)
def test_windows_that_cannot_be_are_refused_where_they_are_written(build: Any, flaw: str) -> None:
    with pytest.raises(PipelineError, match=flaw):
        check(build().write("out", ListSink()), "local")


@pytest.mark.parametrize(
    ("kind", "early", "in_yaml", "in_words"),
    [
        (Tumbling(60.0), Early(every_s=2.5), "every_s: 2.5", "early results every 2.5 s; late"),
        (Tumbling(60.0), Early(every_records=9), "every_records: 9", "every 9 records; late"),
        (CountTumbling(100), None, "approximate: true", "CountTumbling(records=100); total"),
        (Global(), Early(every_records=9), "global: {}", "early results every 9 records"),
    ],
)
def test_yaml_and_explain_say_when_a_window_emits(
    kind: Any, early: Any, in_yaml: str, in_words: str
) -> None:
    aggregates = {"total": Sum("n"), "users": CountDistinct("n", approximate=True)}
    stream = keyed().window("w", kind, aggregates, early=early)
    graph = stream.write("out", ListSink())

    text = to_yaml(graph, WORDS)

    assert in_yaml in text
    assert from_yaml(text, WORDS) == graph
    assert in_words in explain(graph)

"""When windows emit what: early results, what an author writes for them, what is refused."""

import asyncio
from typing import Any

import pytest

import sage_flink as sage
from sage_flink.common import PipelineError, Record
from sage_flink.flow import (
    Collect,
    Count,
    Early,
    Session,
    Stream,
    Sum,
    Tumbling,
    check,
    explain,
    from_yaml,
    to_yaml,
)
from sage_flink.flow import lists as list_ends
from sage_flink.flow.lists import ListSink, ListSource

#: A multiple of ten seconds.
START_MS = 1_700_000_000_000
WORDS = {"list_source": list_ends.ListSource, "list_sink": list_ends.ListSink}


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
        (
            lambda: keyed().window("w", Tumbling(1), {"early": Count()}, early=Early(every_s=1)),
            "a name other than",
        ),
    ],
)
def test_windows_that_cannot_be_are_refused_where_they_are_written(build: Any, flaw: str) -> None:
    with pytest.raises(PipelineError, match=flaw):
        check(build().write("out", ListSink()), "local")


@pytest.mark.parametrize(
    ("early", "in_yaml", "in_words"),
    [
        (Early(every_s=2.5), "early:\n    every_s: 2.5", "early results every 2.5 s"),
        (Early(every_records=9), "early:\n    every_records: 9", "early results every 9 records"),
    ],
)
def test_yaml_and_explain_say_when_a_window_emits(early: Any, in_yaml: str, in_words: str) -> None:
    stream = keyed().window("w", Tumbling(60), {"total": Sum("n")}, early=early)
    graph = stream.write("out", ListSink())

    text = to_yaml(graph, WORDS)

    assert in_yaml in text
    assert from_yaml(text, WORDS) == graph
    assert in_words in explain(graph)

"""Anomalies of a keyed stream, against pandas and river; bad records are dead letters."""

import asyncio
import math
import sys
import timeit
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import river.drift
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_flink as sage
from sage_flink.common import ConfigError, PipelineError, Record
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.operators import PageHinkley, RobustZScore
from sage_flink.tsdb import robust_z_scores
from sage_flink.tsdb.anomalies import SCORE_MAX

BAD: list[Any] = [None, math.nan, math.inf, "20", True, [1], 1e101]


def reading(number: int, value: Any, key: bytes = b"pump", at_ms: int | None = None) -> Record:
    time_ms = 1_000 * number if at_ms is None else at_ms
    return Record(f"t/0/{number}", {"celsius": value}, time_ms, key)


def run(records: list[Record], function: Any, initial: Any = None) -> Any:
    stream = sage.flow.read("in", ListSource(tuple(records)))
    graph = stream.fold("score", function, initial=initial).write("out", ListSink())
    return asyncio.run(sage.flow.run(graph))


def pandas_scores(values: list[float], history: int, history_min: int) -> list[float]:
    """The same by pandas and numpy, for histories whose MAD is not 0."""

    def score(window: Any) -> float:
        before = window[:-1]
        middle = np.median(before)
        mad = np.median(np.abs(before - middle)) / 0.6744897501960817
        return float((window[-1] - middle) / mad)

    rolled = pd.Series(values).rolling(history + 1, min_periods=history_min + 1)
    return list(rolled.apply(score, raw=True).fillna(0.0).clip(-SCORE_MAX, SCORE_MAX))


numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))


@settings(max_examples=30)
@given(st.lists(numbers, unique=True, max_size=40), st.integers(4, 12), st.data())
def test_scores_are_those_of_pandas_on_the_stream_and_on_a_result(
    values: list[float], history: int, data: Any
) -> None:
    history_min = data.draw(st.integers(4, history))
    records = [reading(n, value, b"a" if n % 2 else b"b") for n, value in enumerate(values)]
    spec = RobustZScore("celsius", history=history, history_min=history_min)

    outcome = run(records, spec)

    assert outcome.failed == []
    for key, own in ((b"a", values[1::2]), (b"b", values[::2])):
        made = [r.value["score"] for r in outcome.written["out"] if r.key == key]
        truth = pandas_scores(own, history, history_min)
        assert made == pytest.approx(truth, rel=1e-6, abs=1e-6)
        pairs = list(enumerate(own))
        of_result = robust_z_scores(pairs, history=history, history_min=history_min)
        assert [one.score for one in of_result] == made


def test_a_record_keeps_its_fields_and_its_id() -> None:
    (made,) = run([reading(1, 20.5)], RobustZScore("celsius", into="z")).written["out"]

    assert made == reading(1, 20.5).replace(value={"celsius": 20.5, "z": 0.0})


@pytest.mark.parametrize("bad", BAD)
def test_a_value_that_is_no_number_is_a_dead_letter_and_no_part_of_the_history(bad: Any) -> None:
    values = [20.0, 21.0, 19.0, 20.5, 30.0, 20.0]
    good = [reading(n, value) for n, value in enumerate(values)]
    spec = RobustZScore("celsius", history=5, history_min=3)

    outcome = run([*good[:4], reading(9, bad, at_ms=3_500), *good[4:]], spec)

    assert outcome.written["out"] == run(good, spec).written["out"]
    (failed,) = outcome.failed
    assert failed.id == "t/0/9"
    assert failed.reason.startswith("field 'celsius' must be a")


def test_a_record_that_is_out_of_order_is_a_dead_letter_and_no_part_of_the_history() -> None:
    good = [reading(n, float(n * n)) for n in range(8)]
    late = reading(9, 1_000.0, at_ms=3_999)
    spec = RobustZScore("celsius", history=5, history_min=3)

    outcome = run([*good[:5], late, reading(10, 5.0, b"other", at_ms=0), *good[5:]], spec)

    scored = [record for record in outcome.written["out"] if record.key == b"pump"]
    assert scored == run(good, spec).written["out"]
    (failed,) = outcome.failed
    assert failed.reason == (
        "is out of order: its time is 1 ms before that of the last record of its key; put a window "
        "before this step"
    )


def test_a_jump_behind_equal_values_has_a_finite_score() -> None:
    values = [*[20.0] * 10, 20.0, 20.1, 19.9]

    made = [r.value["score"] for r in run(readings(values), RobustZScore("celsius")).written["out"]]
    damped = run(readings(values), RobustZScore("celsius", scale_min=0.5)).written["out"]

    assert made[10:12] == [0.0, 1e6]
    assert made[12] < -5
    assert [r.value["score"] for r in damped][10:] == pytest.approx([0.0, 0.2, -0.2])


def readings(values: list[float]) -> list[Record]:
    return [reading(n, value) for n, value in enumerate(values)]


def test_the_state_is_bounded_and_a_record_is_cheap() -> None:
    spec, state = RobustZScore("celsius"), None
    random = np.random.default_rng(1)
    for n, value in enumerate(random.normal(size=1_000)):
        state, _ = spec(state, reading(n, float(value)))

    assert len(msgspec.msgpack.encode(state)) < 1_000
    record = reading(1_000, 0.5)
    assert min(timeit.repeat(lambda: spec(state, record), number=50, repeat=5)) / 50 < 500e-6


@pytest.mark.parametrize(
    ("options", "flaw"),
    [
        ({"field": ""}, "field must be the path of a field"),
        ({"into": ""}, "into must be a name"),
        ({"history": 2}, "history must be at least 3"),
        ({"history": 1_001}, "history must be at most 1000"),
        ({"history": True}, "history must be a whole number"),
        ({"history_min": 2}, "history_min must be at least 3"),
        ({"history_min": 101}, "history_min must be at most history"),
        ({"scale_min": -1}, "scale_min must be 0 or more"),
        ({"scale_min": math.nan}, "scale_min must be 0 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: Any, flaw: str) -> None:
    with pytest.raises(PipelineError, match=f"robust_z_score: {flaw}"):
        RobustZScore(**{"field": "celsius", **options})


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.integers(0, 9)), max_size=80),
    st.sampled_from(["up", "down", "both"]),
    st.integers(1, 8),
    st.floats(0.5, 20),
    st.floats(0, 2),
)
def test_changes_are_those_that_one_test_of_river_finds_for_each_key(
    events: list[tuple[bytes, int]], side: Any, points_min: int, threshold: float, delta: float
) -> None:
    records = [reading(n, value, key) for n, (key, value) in enumerate(events)]
    spec = PageHinkley("celsius", threshold, delta, points_min=points_min, side=side)

    found = [record.value["change"] for record in run(records, spec).written["out"]]

    options = {"min_instances": points_min, "delta": delta, "threshold": threshold, "mode": side}
    tests = {key: river.drift.PageHinkley(**options) for key in (b"a", b"b")}
    truth = []
    for key, value in events:
        tests[key].update(float(value))
        truth.append(tests[key].drift_detected)
    assert found == truth


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([-1, 1]))
def test_a_shift_of_the_mean_is_found_once_and_soon(seed: int, sign: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 1, 200)
    values = [float(x) + (sign * 8 if n >= 100 else 0) for n, x in enumerate(noise)]

    outcome = run(readings(values), PageHinkley("celsius", threshold=30, delta=1))

    places = [n for n, record in enumerate(outcome.written["out"]) if record.value["change"]]
    assert len(places) == 1
    assert 100 <= places[0] <= 115


@pytest.mark.parametrize("bad", BAD)
def test_a_value_that_is_no_number_changes_no_mean(bad: Any) -> None:
    good = readings([float(n % 3 + 9 * (n > 40)) for n in range(80)])
    spec = PageHinkley("celsius", threshold=20)

    outcome = run([*good[:30], reading(99, bad, at_ms=29_500), *good[30:]], spec)

    assert outcome.written["out"] == run(good, spec).written["out"]
    assert sum(record.value["change"] for record in outcome.written["out"]) == 1
    assert [failed.id for failed in outcome.failed] == ["t/0/99"]


def test_without_its_package_a_run_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river.drift", None)

    with pytest.raises(ConfigError, match=r"missing: pip install 'sage-flink\[analysis\]'"):
        run(readings([1.0]), PageHinkley("celsius", threshold=20))


@pytest.mark.parametrize(
    ("options", "flaw"),
    [
        ({"field": "."}, "field must be the path of a field"),
        ({"into": ""}, "into must be a name"),
        ({"threshold": 0}, "threshold must be a number above 0"),
        ({"threshold": math.inf}, "threshold must be a number above 0"),
        ({"delta": -1}, "delta must be 0 or more"),
        ({"points_min": 0}, "points_min must be at least 1"),
        ({"side": "left"}, "side must be one of up, down, both"),
    ],
)
def test_settings_of_the_test_that_cannot_be_are_refused(options: Any, flaw: str) -> None:
    with pytest.raises(PipelineError, match=f"page_hinkley: {flaw}"):
        PageHinkley(**{"field": "celsius", "threshold": 5, **options})

"""Alerts with hysteresis: compared with what pandas makes of the same numbers."""

import asyncio
import math
from typing import Any

import msgspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_flink as sage
from sage_flink.common import PipelineError, Record
from sage_flink.flow import check, from_yaml, to_yaml, vocabulary
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.operators import Alerts

MINUTE_MS = 60_000


def score(minute: int, value: Any, key: bytes = b"pump", **fields: Any) -> Record:
    id_ = f"t/0/{key!r}/{minute}"
    return Record(id_, {"score": value, **fields}, minute * MINUTE_MS, key, origin=id_)


def run(records: list[Record], function: Alerts) -> Any:
    stream = sage.flow.read("in", ListSource(tuple(records)))
    graph = stream.fold("alerts", function, initial=None).write("out", ListSink())
    return asyncio.run(sage.flow.run(graph))


def alerts(records: list[Record], function: Alerts) -> list[dict[str, Any]]:
    outcome = run(records, function)
    assert outcome.failed == []
    return [record.value for record in outcome.written["out"]]


def changes(values: list[float], function: Alerts) -> list[tuple[str, int]]:
    """State and minute of each record that the numbers of minutes 1, 2, ... make."""
    made = run([score(n, value) for n, value in enumerate(values, 1)], function).written["out"]
    return [(r.value["state"], r.timestamp_ms // MINUTE_MS) for r in made]


def test_an_alert_opens_above_one_limit_and_closes_below_another() -> None:
    made = alerts(
        [score(n, v) for n, v in enumerate([1, 6, 8, 4, 3, 2, 1], 1)], Alerts("score", 5, 3)
    )

    assert [(one["state"], one["value"], one["peak"], one["points"]) for one in made] == [
        ("open", 6.0, 6.0, 1),
        ("close", 2.0, 8.0, 5),
    ]
    opened, closed = made
    assert opened["id"] == closed["id"]
    assert opened["key"] == closed["key"] == "pump"
    assert opened["above_since_ms"] == opened["opened_at_ms"] == closed["opened_at_ms"] == 120_000
    assert (opened["closed_at_ms"], closed["closed_at_ms"]) == (None, 360_000)


@pytest.mark.parametrize(
    ("options", "values", "expected"),
    [
        ({}, [5, 5, 5], []),
        ({}, [6, 3, 3], [("open", 1)]),
        ({"for_points": 3}, [6, 6, 4, 6, 6, 6, 6], [("open", 6)]),
        ({"for_s": 120}, [6, 6, 6, 6], [("open", 3)]),
        ({"for_s": 120}, [6, 6, 4, 6, 6], []),
        ({"for_points": 2, "for_s": 180}, [6, 6, 6, 6], [("open", 4)]),
        ({}, [-9, -9], []),
        ({"absolute": True}, [-9, 9, -4, 2], [("open", 1), ("close", 4)]),
        ({}, [6, 2, 6, 2], [("open", 1), ("close", 2), ("open", 3), ("close", 4)]),
        ({}, [6, 4, 6, 4, 6, 2], [("open", 1), ("close", 6)]),
    ],
)
def test_when_an_alert_opens_and_closes(
    options: Any, values: list[float], expected: list[tuple[str, int]]
) -> None:
    assert changes(values, Alerts("score", 5, 3, **options)) == expected


def pandas_spans(values: list[float], for_points: int) -> list[tuple[int, int | None]]:
    """The opening and closing places of alerts, by runs of a pandas Series."""
    series = pd.Series(values, dtype=float)
    above = series > 5
    streaks = above.groupby((~above).cumsum()).cumsum()
    openings, closings = series.index[streaks >= for_points], series.index[series < 3]
    spans: list[tuple[int, int | None]] = []
    after = -1
    while len(later := openings[openings > after]):
        ends = closings[closings > later[0]]
        spans.append((int(later[0]), int(ends[0]) if len(ends) else None))
        if not len(ends):
            break
        after = int(ends[0])
    return spans


@settings(max_examples=50)
@given(st.lists(st.integers(0, 8), max_size=60), st.integers(1, 4))
def test_alerts_are_those_of_pandas(values: list[float], for_points: int) -> None:
    found = alerts(
        [score(n, value) for n, value in enumerate(values, 1)],
        Alerts("score", 5, 3, for_points=for_points),
    )

    opened = [one for one in found if one["state"] == "open"]
    closed = {one["id"]: one for one in found if one["state"] == "close"}
    spans = [
        (one["opened_at_ms"], closed[one["id"]]["closed_at_ms"] if one["id"] in closed else None)
        for one in opened
    ]
    truth = pandas_spans(values, for_points)
    minutes = [tuple(None if n is None else (n + 1) * MINUTE_MS for n in span) for span in truth]
    assert spans == minutes
    for one in closed.values():
        first = one["above_since_ms"] // MINUTE_MS - 1
        part = pd.Series(values)[first : one["closed_at_ms"] // MINUTE_MS]
        assert (one["peak"], one["points"]) == (part.max(), len(part))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"\xff"]), st.integers(0, 8))))
def test_keys_do_not_mix_and_no_alert_is_open_twice(events: list[tuple[bytes, int]]) -> None:
    records = [
        score(n, value, key).replace(timestamp_ms=1 + n // 4)
        for n, (key, value) in enumerate(events)
    ]
    made = run(records, Alerts("score", 5, 3)).written["out"]

    assert len({record.id for record in made}) == len(made)
    opened = [record.value["id"] for record in made if record.value["state"] == "open"]
    assert len(set(opened)) == len(opened)
    for key in (b"a", b"b", b"\xff"):
        own = [record for record in made if record.key == key]
        alone = run([r for r in records if r.key == key], Alerts("score", 5, 3)).written["out"]
        assert own == alone
        states = [record.value["state"] for record in own]
        assert states == (["open", "close"] * len(states))[: len(states)]


def test_two_alerts_that_would_open_in_one_millisecond_open_one_after_the_other() -> None:
    values = [6, 2, 6, 6, 2]
    records = [
        score(n, value).replace(timestamp_ms=5 if n < 3 else 6) for n, value in enumerate(values)
    ]

    made = alerts(records, Alerts("score", 5, 3))

    assert [(one["state"], one["above_since_ms"], one["opened_at_ms"]) for one in made] == [
        ("open", 5, 5),
        ("close", 5, 5),
        ("open", 5, 6),
        ("close", 5, 6),
    ]


def test_the_severity_is_that_of_the_peak() -> None:
    spec = Alerts("score", 5, 3, critical_above=10, absolute=True)

    made = alerts([score(n, v) for n, v in enumerate([-6, -11, 4, 1, 12], 1)], spec)

    assert [(one["state"], one["severity"], one["peak"]) for one in made] == [
        ("open", "warning", -6.0),
        ("close", "critical", -11.0),
        ("open", "critical", 12.0),
    ]


def test_a_replay_makes_the_same_records_and_two_names_or_keys_make_others() -> None:
    records = [score(1, 9), score(2, 0), score(3, 9, b"other")]

    made = run(records, Alerts("score", 5, 3)).written["out"]
    again = run(records, Alerts("score", 5, 3)).written["out"]
    named = run(records, Alerts("score", 5, 3, name="hot")).written["out"]

    assert again == made
    assert [record.id.rpartition("/")[2] for record in made] == ["open", "close", "open"]
    assert len({record.id for record in (*made, *named)}) == 6
    assert len({record.value["id"] for record in (*made, *named)}) == 4


def test_fields_are_kept_from_the_record_that_changes_the_state() -> None:
    records = [score(1, 9, celsius=80), score(2, 9, celsius=90), score(3, 0, celsius=20)]

    made = alerts(records, Alerts("score", 5, 3, keep=("celsius",)))

    assert [one["celsius"] for one in made] == [80, 20]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (score(2, None), "field 'score' must be a number, got NoneType"),
        (score(2, math.nan), "field 'score' must be a finite number of at most 1e100, got nan"),
        (score(2, math.inf), "field 'score' must be a finite number of at most 1e100, got inf"),
        (score(2, "9"), "field 'score' must be a number, got str"),
        (score(2, 9).replace(value="9"), "field 'score' must be a number, got NoneType"),
        (score(2, 9).replace(timestamp_ms=0), "it has no event time: timestamp_ms is 0"),
        (score(0, 0).replace(timestamp_ms=5), "is out of order: its time is 59995 ms before"),
    ],
)
def test_a_bad_record_is_a_dead_letter_and_the_state_is_as_before(bad: Record, reason: str) -> None:
    good = [score(1, 6), score(2, 7), score(3, 9), score(4, 1)]
    spec = Alerts("score", 5, 3, for_points=2)

    outcome = run([good[0], bad.replace(id="bad"), *good[1:]], spec)

    assert outcome.written["out"] == run(good, spec).written["out"]
    assert len(outcome.written["out"]) == 2
    (failed,) = outcome.failed
    assert failed.id == "bad"
    assert failed.reason.startswith(reason)


def test_a_record_without_a_kept_field_opens_no_alert() -> None:
    outcome = run([score(1, 9), score(2, 9, unit="C")], Alerts("score", 5, 3, keep=("unit",)))

    assert [failed.reason for failed in outcome.failed] == ["field 'unit' is missing"]
    assert [r.value["opened_at_ms"] for r in outcome.written["out"]] == [2 * MINUTE_MS]


def test_the_state_of_a_key_is_bounded() -> None:
    spec, state = Alerts("score", 5, 3), None
    for minute in range(1, 2_000):
        state, _ = spec(state, score(minute, 9))

    assert len(msgspec.msgpack.encode(state)) < 70


def test_alerts_have_a_yaml_form() -> None:
    import sage_connectors
    from sage_flink import operators

    words = vocabulary(sage_connectors, operators)
    graph = from_yaml(
        """
steps:
- read: points
  from: {kafka: {topic: points, format: json}}
- key_by: by-sensor
  input: points
  field: sensor
- fold: score
  input: by-sensor
  with: {robust_z_score: {field: celsius, history: 50}}
  initial: null
- fold: alerts
  input: score
  with: {alerts: {field: score, open_above: 5, close_below: 3.0, keep: [sensor]}}
  initial: null
- write: out
  input: alerts
  into: {kafka: {topic: alerts, format: json}}
dead_letters: {kafka: {topic: failed}}
""",
        words,
    )

    assert check(graph)
    assert from_yaml(to_yaml(graph, words), words) == graph


@pytest.mark.parametrize(
    ("options", "flaw"),
    [
        ({"field": "a..b"}, "field must be the path of a field"),
        ({"open_above": "5"}, "open_above must be a number"),
        ({"open_above": math.nan}, "open_above must be a number"),
        ({"close_below": 6}, "close_below must be a number, at most open_above"),
        ({"close_below": None}, "close_below must be a number"),
        ({"for_points": 0}, "for_points must be at least 1"),
        ({"for_s": -1}, "for_s must be 0 or more seconds"),
        ({"critical_above": 4}, "critical_above must be a number, open_above or more"),
        ({"absolute": 1}, "absolute must be true or false"),
        ({"keep": "sensor"}, "keep must be a tuple of names"),
        ({"keep": ("peak",)}, "keep must be without the fields that an alert has"),
        ({"name": ""}, "name must be a name"),
        ({"name": "a\x00"}, "name must be without a zero byte"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: Any, flaw: str) -> None:
    with pytest.raises(PipelineError, match=f"alerts: {flaw}"):
        Alerts(**{"field": "score", "open_above": 5, "close_below": 3, **options})

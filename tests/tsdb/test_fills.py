"""Windows without points are those that pandas has after a reindex, filled as pandas fills them."""

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_flink.common import Rejected
from sage_flink.tsdb import Aggregate, Aggregation, fill
from sage_flink.tsdb.aggregates import Row, aggregate
from sage_flink.tsdb.fills import FILLS

OF_PANDAS = {
    "none": lambda values: values,
    "zero": lambda values: values.fillna(0),
    "previous": lambda values: values.ffill(),
    "next": lambda values: values.bfill(),
    "linear": lambda values: values.interpolate("index", limit_area="inside"),
}


@settings(deadline=None)
@given(
    times=st.lists(st.tuples(st.integers(-40, 80), st.sampled_from("ab")), min_size=1, max_size=12),
    every_ns=st.integers(1, 9),
    overlap=st.integers(1, 4),
    how=st.sampled_from(FILLS),
    margins=st.tuples(st.integers(0, 20), st.integers(1, 20)),
)
def test_windows_that_overlap_are_filled_as_pandas_does(
    times: list[tuple[int, str]],
    every_ns: int,
    overlap: int,
    how,
    margins: tuple[int, int],
) -> None:
    period_ns = every_ns * overlap
    start_ns = min(time for time, _ in times) - margins[0]
    stop_ns = max(time for time, _ in times) + margins[1]
    rows = [Row(time, {"host": host}, float(n)) for n, (time, host) in enumerate(times)]
    wanted = Aggregation(("mean",), every_ns, period_ns, by=("host",))
    found = aggregate(rows, wanted)

    filled = fill(found, how, every_ns, start_ns, stop_ns, period_ns)

    starts = [t for t in range(-500, stop_ns) if t % every_ns == 0 and t + period_ns > start_ns]
    assert {one.start_ns for one in found} <= set(starts)
    for host in {host for _, host in times}:
        known = {one.start_ns: one.values["mean"] for one in found if one.tags["host"] == host}
        expected = OF_PANDAS[how](pandas.Series(known, dtype=float).reindex(starts))
        own = [one for one in filled if one.tags["host"] == host]
        assert [one.start_ns for one in own] == starts
        values = pandas.Series([one.values["mean"] for one in own], starts, dtype=float)
        pandas.testing.assert_series_equal(values, expected, rtol=1e-12, check_names=False)


def test_the_first_of_windows_that_overlap_holds_the_start() -> None:
    found = [Aggregate({}, 10, {"sum": 1}), Aggregate({}, 40, {"sum": 4})]

    filled = fill(found, "previous", 10, 25, 50, 30)

    assert [(one.start_ns, one.values["sum"]) for one in filled] == [
        *[(0, None), (10, 1), (20, 1), (30, 1), (40, 4)],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((10, 0, 50, 15), "period_ns 15 must be a multiple"), ((0, 0, 50), "multiple of every_ns 0")],
)
def test_a_wrong_length_is_refused(arguments, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        fill([Aggregate({}, 0, {"sum": 1})], "zero", *arguments)


def test_sessions_are_not_filled() -> None:
    (session,) = aggregate([Row(5, {}, 1)], Aggregation(("sum",), session_gap_ns=10))

    with pytest.raises(Rejected, match="between the windows of sessions there are none"):
        fill([session], "zero", 10, 0, 50)

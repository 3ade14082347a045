"""Times of records, watermarks, and sums: the pure functions behind event time and windows."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import Record, Rejected
from sage_flink.flow import Sum
from sage_flink.flow.stateful.aggregates import aggregate
from sage_flink.flow.stateful.times import field_ms
from sage_flink.flow.stateful.watermarks import Watermarks


@pytest.mark.parametrize(
    ("value", "unit", "ms"),
    [
        (1_700_000_000, "s", 1_700_000_000_000),
        (1.5, "s", 1_500),
        (-1, "us", -1),
        (1_500, "us", 1),
        (-1, "ns", -1),
        ("1970-01-01T00:00:01Z", "ms", 1_000),
        ("1969-12-31T23:59:59.9999Z", "s", -1),
        ("2024-02-29T12:00+02:00", "s", 1_709_200_800_000),
    ],
)
def test_a_field_is_a_time_in_its_unit_or_in_rfc_3339(value: Any, unit: Any, ms: int) -> None:
    assert field_ms(value, unit) == ms


@pytest.mark.parametrize(
    "value",
    [True, None, "", "today", "2024-02-30T12:00:00Z", "2024-02-29 12:00:00Z", [], 2**64, -(2**62)],
)
def test_what_is_no_time_is_rejected(value: Any) -> None:
    with pytest.raises(Rejected):
        field_ms(value, "ms")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10_000)), max_size=50))
def test_watermarks_never_go_back_and_stay_behind_every_partition(events: Any) -> None:
    watermarks, latest = Watermarks(150), dict[int, int]()
    before = None
    for partition, ms in events:
        made = watermarks.add(f"t/{partition}/0", ms)
        latest[partition] = max(ms, latest.get(partition, ms))
        if made is not None:
            assert before is None or made > before
            assert made < min(latest.values()) - 150 or len(latest) > 1
            before = made


@given(st.lists(st.floats(-1e12, 1e12) | st.integers(-(2**70), 2**70), min_size=1))
def test_a_sum_is_whole_where_all_numbers_are_and_it_has_64_bits(numbers: Any) -> None:
    made = aggregate(Sum("v"), [Record(str(n), {"v": v}) for n, v in enumerate(numbers)])

    fits = all(isinstance(n, int) and -(2**63) <= n < 2**63 for n in numbers)
    whole = fits and -(2**63) <= sum(numbers) < 2**63
    assert isinstance(made, int) is whole
    exact = sum(map(Fraction, numbers))
    # Numbers beyond 53 bits are rounded before they are added up.
    rounding = 1e-15 * sum(map(abs, map(float, numbers)))
    assert abs(Fraction(made) - exact) <= rounding + 1e-3

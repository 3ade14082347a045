"""A refused batch is bisected until each poison item is alone."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_connectors.isolate import BatchRefused, isolate


@given(st.integers(0, 200), st.sets(st.integers(0, 199), max_size=5))
def test_only_poison_items_are_returned_and_the_others_written(size: int, bad: set[int]) -> None:
    written: set[int] = set()
    requests = 0

    def write(items: Sequence[int]) -> None:
        nonlocal requests
        requests += 1
        if found := bad.intersection(items):
            raise BatchRefused(f"bad: {min(found)}")
        written.update(items)

    refused = isolate(range(size), write)

    expected = {n for n in bad if n < size}
    assert {item for item, _ in refused} == expected
    assert written == set(range(size)) - expected
    assert requests <= 1 + 2 * 9 * len(expected)


def test_three_poison_items_of_five_hundred_cost_a_few_dozen_requests() -> None:
    requests: list[int] = []

    def write(items: Sequence[int]) -> None:
        requests.append(len(items))
        if {3, 250, 499}.intersection(items):
            raise BatchRefused("bad")

    assert sorted(item for item, _ in isolate(range(500), write)) == [3, 250, 499]
    assert len(requests) == 47
    assert sum(requests) < 500 * 8


def test_any_other_error_is_raised() -> None:
    def write(items: Sequence[int]) -> None:
        raise ConnectionError("away")

    with pytest.raises(ConnectionError, match="away"):
        isolate([1, 2], write)

"""A refused batch is split until the guilty stand alone."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_connectors.isolate import NotTaken, isolate


@given(st.integers(0, 200), st.sets(st.integers(0, 199), max_size=5))
def test_only_the_guilty_are_left_and_the_others_written(size: int, bad: set[int]) -> None:
    taken: set[int] = set()
    requests = 0

    def write(items: Sequence[int]) -> None:
        nonlocal requests
        requests += 1
        if found := bad.intersection(items):
            raise NotTaken(f"bad: {min(found)}")
        taken.update(items)

    guilty = isolate(range(size), write)

    expected = {n for n in bad if n < size}
    assert {item for item, _ in guilty} == expected
    assert taken == set(range(size)) - expected
    assert requests <= 1 + 2 * 9 * len(expected)


def test_another_error_ends_the_work() -> None:
    def write(items: Sequence[int]) -> None:
        raise ConnectionError("away")

    with pytest.raises(ConnectionError, match="away"):
        isolate([1, 2], write)

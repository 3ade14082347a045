"""The drills' account: each of its four counts, and an id that the source itself holds twice."""

import pytest

from benchmark_sage.recovery.accounting import Account, Seen, account

FED = {"a": "sum:1", "b": "sum:2"}
BOTH = {"a": ["sum:1"], "b": ["sum:2"]}


def counts(found: Account) -> tuple[int, int, int, int]:
    return found.lost, found.duplicated, found.both, found.wrong


@pytest.mark.parametrize(
    ("seen", "copies", "expected"),
    [
        pytest.param(Seen(BOTH), {}, (0, 0, 0, 0), id="all there"),
        pytest.param(Seen({"a": ["sum:1"]}, ["b"]), {}, (0, 0, 0, 0), id="one dead"),
        pytest.param(Seen({"a": ["sum:1"]}), {}, (1, 0, 0, 0), id="one lost"),
        pytest.param(Seen({**BOTH, "a": ["sum:1"] * 2}), {}, (0, 1, 0, 0), id="one doubled"),
        pytest.param(Seen(BOTH, ["a"]), {}, (0, 0, 1, 0), id="one in both"),
        pytest.param(Seen({**BOTH, "b": ["sum:1"]}), {}, (0, 0, 0, 1), id="another's content"),
        pytest.param(Seen({**BOTH, "c": ["sum:3"]}), {}, (0, 0, 0, 1), id="never fed"),
        pytest.param(Seen({**BOTH, "a": ["sum:1"] * 2}), {"a": 2}, (0, 0, 0, 0), id="fed twice"),
        pytest.param(Seen({**BOTH, "a": ["sum:1"] * 3}), {"a": 2}, (0, 1, 0, 0), id="twice, three"),
        pytest.param(Seen(BOTH), {"a": 2}, (1, 0, 0, 0), id="fed twice, one lost"),
    ],
)
def test_each_fault_is_counted_once(seen, copies, expected):
    assert counts(account(FED, seen, copies)) == expected

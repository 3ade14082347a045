"""Record accounting of the drills: each of its four counts, and an id that was fed twice."""

import pytest

from benchmark_sage.recovery.accounting import DeliveryCounts, SinkContents, count_deliveries

FED = {"a": "sum:1", "b": "sum:2"}
BOTH = {"a": ["sum:1"], "b": ["sum:2"]}


def counts(found: DeliveryCounts) -> tuple[int, int, int, int]:
    return found.lost, found.duplicated, found.both, found.wrong


@pytest.mark.parametrize(
    ("seen", "copies", "expected"),
    [
        pytest.param(SinkContents(BOTH), {}, (0, 0, 0, 0), id="all there"),
        pytest.param(SinkContents({"a": ["sum:1"]}, ["b"]), {}, (0, 0, 0, 0), id="one dead"),
        pytest.param(SinkContents({"a": ["sum:1"]}), {}, (1, 0, 0, 0), id="one lost"),
        pytest.param(
            SinkContents({**BOTH, "a": ["sum:1"] * 2}), {}, (0, 1, 0, 0), id="one doubled"
        ),
        pytest.param(SinkContents(BOTH, ["a"]), {}, (0, 0, 1, 0), id="one in both"),
        pytest.param(
            SinkContents({**BOTH, "b": ["sum:1"]}), {}, (0, 0, 0, 1), id="another's content"
        ),
        pytest.param(SinkContents({**BOTH, "c": ["sum:3"]}), {}, (0, 0, 0, 1), id="never fed"),
        pytest.param(
            SinkContents({**BOTH, "a": ["sum:1"] * 2}), {"a": 2}, (0, 0, 0, 0), id="fed twice"
        ),
        pytest.param(
            SinkContents({**BOTH, "a": ["sum:1"] * 3}), {"a": 2}, (0, 1, 0, 0), id="twice, three"
        ),
        pytest.param(SinkContents(BOTH), {"a": 2}, (1, 0, 0, 0), id="fed twice, one lost"),
    ],
)
def test_each_fault_is_counted_once(seen, copies, expected):
    assert counts(count_deliveries(FED, seen, copies)) == expected

"""B11 without timing goals: every policy decides in every cell, and the headline reads them."""

import pytest

from benchmark_sage.b11_scheduler import cells_of, headline
from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.routing import POLICIES as ROUTING
from sage_gateway.scheduling import POLICIES as SCHEDULING

NAMED = [("policy", name) for name in SCHEDULING] + [("routing", name) for name in ROUTING]


@pytest.mark.parametrize(("kind", "name"), NAMED)
def test_every_policy_decides_at_every_size(kind: str, name: str) -> None:
    spec = ModelSpec.model_validate(
        {"engine": "mock", "kind": "chat", "concurrency": 8} | {kind: name}
    )

    cells = dict(cells_of(spec, (1, 10), (0, 100), 40, 1))

    assert list(cells) == ["1 x 0", "10 x 0", "1 x 100", "10 x 100"]
    for row in cells.values():
        assert 0 < row["decide_ms_p50"] <= row["decide_ms_p99"] < 50


def test_the_headline_is_the_slowest_policy_of_each_repeat() -> None:
    def cells(*ms: float) -> dict[str, list[dict[str, float]]]:
        rows = [{"decide_ms_p50": one} for one in ms]
        return {"100 x 10000": rows, "1000 x 100000": rows}

    found = headline(
        {"scheduling": {"fifo": cells(1, 2, 9)}, "routing": {"prefix": cells(3, 1, 1)}}
    )

    assert [(h.value, h.spread, h.floor) for h in found] == [(3, (2, 9), 0.1), (3, (2, 9), 1.0)]


@pytest.mark.parametrize("routing", ["least_loaded", "prefix", "session"])
def test_a_decision_over_1000_replicas_and_10000_queued_takes_less_than_a_millisecond(
    routing: str,
) -> None:
    spec = ModelSpec(engine="mock", kind="chat", concurrency=8, policy="adaptive", routing=routing)

    ((_, row),) = cells_of(spec, (1000,), (10_000,), 100, 1)

    assert row["decide_ms_p50"] < 1.0

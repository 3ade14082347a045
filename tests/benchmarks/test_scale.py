"""The scale benchmark: its pure functions, and its slow step on the local stack."""

import doctest
from typing import Any

import pytest

from benchmark_sage import b_scale, scale_watch
from benchmark_sage.scale_job import build
from benchmark_sage.workload import Work
from sage_gateway.config.pool_spec import ModelSpec

SAMPLES = [
    {"at_s": float(i), "wanted": count, "ready": count, "wait_ms_p99": 100.0 * count}
    for i, count in enumerate([1, 2, 3, 1, 0, 1])
]


def row(**more: Any) -> dict[str, Any]:
    return {"first_from_zero_s": 2.5, "failed": 0, "samples": SAMPLES, **more}


def test_the_pool_accepts_the_model() -> None:
    spec = ModelSpec.model_validate(b_scale.SPEC)

    assert spec.scaling is not None
    assert (spec.scaling.min, spec.scaling.max) == (0, 3)


def test_the_headline_is_the_worst_of_the_cycles_that_ran() -> None:
    rows = {"cycle": [row(), row(first_from_zero_s=4.0, failed=2), {"error": "no stack"}]}

    first, failed = b_scale.headline(rows)

    assert (first.value, failed.value) == (4.0, 2.0)
    assert b_scale.headline({"cycle": [{"error": "no stack"}]}) == []


def test_the_examples_hold() -> None:
    assert doctest.testmod(scale_watch).failed == 0


@pytest.mark.slow
def test_the_plot_is_a_picture(tmp_path: Any) -> None:
    b_scale._plot([{"error": "no stack"}, row()], tmp_path / "scale.png")

    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_the_slow_step_is_before_the_call() -> None:
    names = [node.name for node in build(Work(name="w", url=""), 0.5).nodes]

    assert names.index("slow") < names.index("answer")


@pytest.mark.full
@pytest.mark.flink
@pytest.mark.service
@pytest.mark.alone
@pytest.mark.timeout(300)
# PyFlink leaves its client JVM and its files open until the interpreter ends.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_slow_python_step_is_reported_and_no_replica_is_added() -> None:
    found = b_scale._slow_step(20_000)

    assert found["added"] == 0
    assert found["replicas"] == [1]
    assert "the pool is not the bottleneck: operator " in found["words"]
    assert "slow" in found["words"]
    assert found["inputs"]["lag"] > 0

"""The scale benchmark, as far as it needs no stack."""

from typing import Any

from benchmark_sage import b_scale
from benchmark_sage.scale_job import build
from benchmark_sage.workload import Work
from sage_gateway.pool_spec import ModelSpec

SAMPLES = [
    {"at_s": float(i), "wanted": count, "ready": count, "wait_ms_p99": 100.0 * count}
    for i, count in enumerate([1, 2, 3, 1, 0, 1])
]


def row(**more: Any) -> dict[str, Any]:
    return {"first_from_zero_s": 2.5, "failed": 0, "samples": SAMPLES, **more}


def test_the_model_is_one_that_the_pool_takes() -> None:
    spec = ModelSpec.model_validate(b_scale.SPEC)

    assert spec.scaling is not None
    assert (spec.scaling.min, spec.scaling.max) == (0, 3)


def test_the_headline_is_the_worst_of_the_cycles_that_ran() -> None:
    rows = {"cycle": [row(), row(first_from_zero_s=4.0, failed=2), {"error": "no stack"}]}

    first, failed = b_scale.headline(rows)

    assert (first.value, failed.value) == (4.0, 2.0)
    assert b_scale.headline({"cycle": [{"error": "no stack"}]}) == []


def test_the_plot_is_a_picture(tmp_path: Any) -> None:
    b_scale._plotted([{"error": "no stack"}, row()], tmp_path / "scale.png")

    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_the_slow_step_stands_before_the_call() -> None:
    names = [node.name for node in build(Work(name="w", url=""), 0.5).nodes]

    assert names.index("slow") < names.index("answer")

"""One run of all branches of ``call_branches`` for each target of a Call node.

A gap of one target is a line of GAPS.
"""

import os
from collections.abc import Iterator

import pytest
from call_branches import BRANCHES, DIM
from call_targets import KEY, TARGETS, RunResult, run_target
from minicluster import restore_environment

from benchmark_sage.mock_engine import MockEngine, mock_engine

#: Name of a test in pytest -> the reason why its target fails it.
GAPS: dict[str, str] = {}
#: The run of each target that has run, for all files of this folder.
RUNS: dict[str, RunResult] = {}


@pytest.fixture(scope="module")
def engine() -> Iterator[MockEngine]:
    with mock_engine(dim=DIM, record=100_000) as started:
        yield started


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name == "local" else [pytest.mark.flink, pytest.mark.alone])
        for name in TARGETS
    ],
)
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """One target after the other, each with the key in its environment."""
    environment = restore_environment()
    next(environment)
    os.environ["SAGE_GATEWAY_KEY"] = KEY
    yield request.param
    next(environment, None)


@pytest.fixture(scope="module")
def run(target: str, engine: MockEngine, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The one run of this target."""
    if target not in RUNS:
        engine.reset()
        folder = tmp_path_factory.mktemp(target)
        RUNS[target] = run_target(TARGETS[target], BRANCHES, engine, folder)
    return RUNS[target]


@pytest.fixture(autouse=True)
def gap(request: pytest.FixtureRequest) -> None:
    if reason := GAPS.get(request.node.name):
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))

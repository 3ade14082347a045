"""Bandit reports no finding of high severity in the shipped code."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = (
    "sage_flink",
    "connectors/sage_connectors",
    "jobs/sage_jobs",
    "gateway/sage_gateway",
    "benchmarks/benchmark_sage",
)


@pytest.mark.processes  # five seconds of one core: in infra/test.sh, not before each commit
def test_bandit_has_no_finding_of_high_severity() -> None:
    bandit = Path(sys.executable).with_name("bandit")
    line = [str(bandit), "-q", "-lll", "-r", *SHIPPED]

    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout

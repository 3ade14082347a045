"""The clock of Kafka, Flink, its Python workers and the gateway jumps by an hour and back."""

import time

import pytest

from benchmark_sage.recovery.clock import jumping_clock

HOUR_S = 3600
JUMPED_S = 15.0


@pytest.fixture
def jumping(cluster, tmp_path):
    """The clock of the cluster's servers."""
    cluster.down()
    with jumping_clock(tmp_path) as clock:
        cluster.up()
    yield clock
    cluster.down()


@pytest.mark.parametrize("seconds", [HOUR_S, -HOUR_S])
def test_a_jump_of_the_clock_loses_no_record(run, jumping, seconds):
    def fault(_running):
        jumping.jump(seconds)
        time.sleep(JUMPED_S)
        jumping.jump(0)

    outcome = run(fault, name=f"clock_{seconds:+d}_s")

    assert outcome.is_balanced, outcome

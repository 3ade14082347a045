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


@pytest.mark.full
def test_jumps_of_the_clock_lose_no_record(run, jumping):
    def fault(_running):
        for seconds in (HOUR_S, 0, -HOUR_S):
            jumping.jump(seconds)
            time.sleep(JUMPED_S)
        jumping.jump(0)

    outcome = run(fault, name="clock_jumps", rate=30)

    assert outcome.is_balanced, outcome

"""The clock of every server on libc jumps an hour ahead, and back: no loss.

By libfaketime, on a stack of its own: Kafka, Flink with its Python workers, and the gateway. The
monotonic clock goes on as it was, as it does when a machine's clock is set.
"""

import os
import time
from pathlib import Path

import pytest

from benchmark_sage.recovery import events
from benchmark_sage.recovery.cluster import prepare
from benchmark_sage.recovery.drill import drill

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
JUMPED_S = 10.0


@pytest.fixture
def jumping(cluster, tmp_path):
    """A stack whose clock is the machine's plus what stands in the file that comes back."""
    assert LIBRARIES, "libfaketime is missing: apt-get install faketime"
    clock = tmp_path / "clock"
    clock.write_text("+0")
    faked = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": "1",
    }
    cluster.down()
    other = prepare(cluster.home.parent / "drills-clock", cluster.home)
    os.environ.update(faked, SAGE_HOME=str(other.home))
    try:
        other.up()
    finally:
        for name in faked:
            del os.environ[name]
    yield other, clock
    other.down()
    os.environ["SAGE_HOME"] = str(cluster.home)


@pytest.mark.parametrize("jump", ["+3600", "-3600"])
def test_a_jump_of_the_clock_loses_nothing(request, jumping, seed, jump):
    cluster, clock = jumping
    count = request.config.getoption("--drill-ids", 600)

    def fault(running):
        clock.write_text(jump)
        time.sleep(JUMPED_S)
        clock.write_text("+0")

    outcome = drill(
        cluster,
        list(events(count)),
        fault,
        rate_per_s=request.config.getoption("--drill-rate", 120.0),
        seed=seed,
    )

    request.config.drill_rows.append((f"clock_{jump}s", outcome.row()))
    assert outcome.closes, outcome

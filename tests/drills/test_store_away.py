"""kill -9 of Kafka, Milvus or InfluxDB, away for a while: back-pressure, then all of it."""

import time

import pytest

AWAY_S = 30.0


@pytest.mark.parametrize("part", ["kafka", "milvus", "influxdb"])
def test_a_store_that_was_away_misses_nothing(run, part):
    def fault(running):
        before = running.cluster.rss_mib("taskmanager")
        with running.cluster.away(part):
            time.sleep(AWAY_S)
            during = running.cluster.rss_mib("taskmanager")
        running.notes["rss_growth"] = round(during / before - 1, 3)

    outcome = run(fault, name=f"{part}_away")

    assert outcome.balanced, outcome
    assert outcome.notes["rss_growth"] < 0.2

"""kill -9 of Kafka, Milvus or InfluxDB, down for a while: backpressure, then every record."""

import time

import pytest

AWAY_S = 30.0


@pytest.mark.parametrize("server", ["kafka", "milvus", "influxdb"])
def test_a_store_that_was_down_misses_no_record(run, server):
    def fault(running):
        before = running.cluster.rss_mib("taskmanager")
        with running.cluster.away(server):
            time.sleep(AWAY_S)
            during = running.cluster.rss_mib("taskmanager")
        running.notes["rss_growth"] = round(during / before - 1, 3)

    outcome = run(fault, name=f"{server}_away")

    assert outcome.is_balanced, outcome
    assert outcome.notes["rss_growth"] < 0.2

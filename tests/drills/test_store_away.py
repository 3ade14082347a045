"""kill -9 of Kafka, Milvus and InfluxDB, each down for a while: backpressure, then every record."""

import time


def test_stores_that_were_down_miss_no_record(run, full):
    away_s, rate = (30.0, None) if full else (12.0, 15.0)

    def fault(running):
        before = running.cluster.rss_mib("taskmanager")
        for server in ("influxdb", "milvus", "kafka"):
            with running.cluster.away(server):
                time.sleep(away_s)
                during = running.cluster.rss_mib("taskmanager")
            running.notes[f"rss_growth_{server}"] = round(during / before - 1, 3)

    outcome = run(fault, name="stores_away", rate=rate)

    assert outcome.is_balanced, outcome
    assert all(growth < 0.2 for name, growth in outcome.notes.items() if "rss_growth" in name)

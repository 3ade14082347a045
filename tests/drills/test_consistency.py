"""Reads while documents are updated and the TaskManager is killed three times."""

import uuid

import pytest

import sage_flink as sage
from benchmark_sage.recovery.cluster import until
from benchmark_sage.recovery.consistency import ConsistencyRun, build, message, rows_at, rows_in
from benchmark_sage.recovery.workload import DIM
from sage_connectors.kafka_client import delete_topic, ensure_topic, feed
from sage_flink.common import Settings
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.savepoints import folders_of

pytestmark = pytest.mark.full


def test_with_snapshots_no_document_is_torn_and_no_row_vanishes(cluster, full, seed, keep):
    cluster.up()
    reads, times = (50_000, 500) if full else (4_000, 60)

    row = ConsistencyRun(cluster, True, reads, seed=seed).run(times)

    keep("consistency_snapshots", row)
    assert (row["torn"], row["vanished"], row["as_of_wrong"]) == (0, 0, 0), row["examples"]
    assert row["reads"] >= reads
    assert row["restarts"] >= 3


def test_without_snapshots_readers_see_torn_documents_and_vanished_rows(cluster, full, seed, keep):
    cluster.up()
    reads = 50_000 if full else 4_000

    row = ConsistencyRun(cluster, False, reads, seed=seed).run()

    keep("consistency_without", row)
    assert row["torn"] > 0
    assert row["vanished"] > 0 or not full  # some a minute, around the kills


def test_a_job_from_an_older_savepoint_takes_back_what_readers_have_seen(cluster):
    cluster.up()
    name, half, whole = f"consistency{uuid.uuid4().hex[:8]}", 200, 300
    for topic in (name, f"{name}.dead-letters"):
        ensure_topic(topic)
    spec = sage.db.collection(name, dim=DIM)

    def start(savepoint=""):
        options = sage.flow.FlinkOptions(checkpoint_interval_s=2.0, savepoint=savepoint)
        return sage.flow.submit(build(name, snapshots=True), name=name, options=options)

    def shows(updates):
        store = spec.open()
        found = rows_in(store.scan(vectors=False))
        store.close()
        return found == rows_at(updates)

    with FlinkRest(Settings.load().flink_url) as rest:
        job_id = start()
        feed(name, [message(number) for number in range(half)])
        until(lambda: shows(half), 120, "the first half")
        older = rest.stop(job_id, target=folders_of(name, rest).savepoints)
        job_id = start(older)
        feed(name, [message(number) for number in range(half, whole)])
        until(lambda: shows(whole), 120, "all updates")
        rest.cancel(job_id)

        job_id = start(older)
        until(lambda: shows(half), 120, "what the savepoint has", every_s=0.02)
        until(lambda: shows(whole), 120, "all updates again")

        rest.cancel(job_id)
    spec.open().drop()
    delete_topic(name)

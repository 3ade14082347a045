"""Reads while documents are updated and the TaskManager is killed three times."""

import pytest

from benchmark_sage.recovery.consistency import ConsistencyRun

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
    assert row["vanished"] > 0

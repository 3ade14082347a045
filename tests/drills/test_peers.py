"""The same kill -9 for peers, as a comparison for the pipeline's zeros."""

import pytest

from benchmark_sage import sides


@pytest.mark.full
def test_a_killed_consumer_with_auto_commit_loses_or_duplicates_records(peer):
    def kill(work, running):
        for process in running.processes:
            process.kill()
        running.stop()
        return sides.asyncio_consumer(work)

    counts = peer("asyncio_consumer", kill)

    assert counts.lost + counts.duplicated > 0, counts


@pytest.mark.full
def test_pyflinks_own_operator_continues_after_a_killed_taskmanager(peer, cluster):
    def kill(_work, running):
        cluster.kill("taskmanager", "java")
        return running

    counts = peer("pyflink_default", kill)

    assert counts.rows > 0, counts

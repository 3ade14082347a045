"""The same kill -9 for peers: what the pipeline's zeros are worth."""

from benchmark_sage import sides


def test_a_killed_consumer_with_auto_commit_loses_or_doubles(peer):
    def killed(work, running):
        for process in running.processes:
            process.kill()
        running.stop()
        return sides.asyncio_consumer(work)

    account = peer("asyncio_consumer", killed)

    assert account.lost + account.duplicated > 0, account


def test_pyflinks_own_operator_under_a_killed_taskmanager(peer, cluster):
    def killed(_work, running):
        cluster.kill("taskmanager", "java")
        return running

    account = peer("pyflink_default", killed)

    assert account.rows > 0, account

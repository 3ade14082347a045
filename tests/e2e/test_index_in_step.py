"""The index stays in step with its topic: updates, deletions, replays, and a store that goes away.

Counted in Milvus, document by document: exactly the chunks of the last version of each.
"""

import json
import os
import signal
import time

import psutil
import pytest
from waiting import wait_until

from sage_connectors.kafka_client import committed_offsets
from sage_flink.common import sage_home
from sage_flink.platform import stack
from sage_jobs.demo import expect

pytestmark = [
    pytest.mark.service,
    pytest.mark.flink,
    pytest.mark.timeout(600),
    # PyFlink leaves the pipes and sockets of its JVM to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
DOCS = 40


def text(doc, version, words):
    return json.dumps(
        {"id": doc, "text": f"{doc} in version {version}: " + "flows by the mill " * (words // 4)}
    ).encode()


class Fed:
    """The job's topic, and what of it should be in the index."""

    def __init__(self, ingest):
        self.ingest, self.last, self.messages = ingest, {}, 0

    def feed(self, messages):
        """Write (document, message) in order; None is a tombstone."""
        self.ingest.feed([(doc.encode(), value) for doc, value in messages])
        self.messages += len(messages)
        self.last.update(messages)

    def expected(self):
        alive = {d: v for d, v in self.last.items() if v is not None and b'"delete"' not in v}
        return {
            doc: set(expect([(None, value)], self.ingest.config).chunks)
            for doc, value in alive.items()
        }

    def held(self):
        """The ids in the collection by document."""
        store, found = self.ingest.store, {}
        for row in store.client.query(
            store.spec.name, filter='doc != ""', output_fields=["doc"], consistency_level="Strong"
        ):
            found.setdefault(row["doc"], set()).add(row["id"])
        return found

    def settled(self, seconds=240):
        """Return when all messages are read and the index is as expected, and stays so."""
        config, expected = self.ingest.config, self.expected()
        wait_until(
            lambda: committed_offsets(config.group, config.topic) >= self.messages,
            seconds,
            "all is read",
        )
        wait_until(lambda: self.held() == expected, 60, "the index is as expected")
        time.sleep(3)  # what is still in flight would be seen now
        assert self.held() == expected
        assert self.ingest.store.count() == sum(map(len, expected.values()))
        return expected


@pytest.fixture(scope="module")
def fed(ingest):
    return Fed(ingest)


def kill(part, name):
    (found,) = (p for p in stack.processes(sage_home(), part) if name in p.name())
    os.kill(found.pid, signal.SIGKILL)


def names():
    return [f"doc/{n}" for n in range(DOCS)]


def test_documents_fed_twice_stand_once(fed):
    first = [(doc, text(doc, 1, 200 + 40 * n)) for n, doc in enumerate(names())]

    fed.feed(first)
    fed.feed(first)

    assert sum(map(len, fed.settled().values())) > 3 * DOCS
    assert fed.ingest.letters() == []


def test_updates_and_deletions_leave_no_stale_chunk_through_a_killed_taskmanager(fed, capsys):
    before = fed.held()
    shorter = [(doc, text(doc, 2, 40 + 10 * n)) for n, doc in enumerate(names())]
    gone = [(doc, None) for doc in names()[::4]]
    gone += [(doc, json.dumps({"id": doc, "op": "delete"}).encode()) for doc in names()[1::8]]
    back = [(doc, text(doc, 3, 150)) for doc in names()[::8]]

    fed.feed(shorter)
    wait_until(lambda: fed.held() != before, 120, "the first update")
    fed.feed(gone)
    kill("taskmanager", "java")
    fed.feed(back)
    expected = fed.settled()

    with capsys.disabled():
        print(
            f"\nchunks {sum(map(len, before.values()))} of {len(before)} documents before, "
            f"{sum(map(len, expected.values()))} of {len(expected)} after "
            f"{len(shorter)} updates, {len(gone)} deletions, {len(back)} documents back; "
            f"restarts {fed.ingest.rest.restarts(fed.ingest.job_id)}"
        )
    assert len(expected) == DOCS - len(gone) + len(back)
    assert fed.ingest.rest.restarts(fed.ingest.job_id) >= 1
    assert fed.ingest.letters() == []


def test_a_tombstone_with_an_empty_key_is_dead_lettered_and_harms_no_document(fed):
    held = fed.held()

    fed.ingest.feed([(b"", None)])
    fed.messages += 1
    wait_until(lambda: len(fed.ingest.letters()) == 1, 60, "the dead letter")

    assert "no key with the document's id" in fed.ingest.letters()[0].reason
    assert fed.held() == held


def test_while_milvus_is_away_the_job_waits_and_loses_nothing(fed):
    restarts = fed.ingest.rest.restarts(fed.ingest.job_id)
    (server,) = (p for p in stack.processes(sage_home(), "milvus") if "milvus" in p.name())

    server.suspend()  # deaf rather than dead: the supervisor would have it back at once
    try:
        fed.feed([(doc, text(doc, 4, 60)) for doc in names()])
        wait_until(lambda: "step 'vectors' waits" in log(), 90, "a line in the log")
        rss = worker_mib()
        fed.feed([(doc, text(doc, 5, 30 + n)) for n, doc in enumerate(names())] * 20)
        time.sleep(20)
        assert worker_mib() < 1.2 * rss
    finally:
        server.resume()
    fed.settled()

    assert fed.ingest.rest.restarts(fed.ingest.job_id) == restarts


def log():
    return "".join(path.read_text() for path in (sage_home() / "logs").glob("**/*task*log"))


def worker_mib():
    workers = [p for p in stack.processes(sage_home(), "taskmanager") if "python" in p.name()]
    return sum(p.memory_info().rss for p in workers if psutil.pid_exists(p.pid)) / 2**20

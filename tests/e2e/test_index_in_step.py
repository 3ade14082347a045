"""The index equals its topic after updates, deletes, replays and an outage of the store.

Compared in Milvus, document by document: exactly the chunks of its last version.
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
    pytest.mark.alone,
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


class IndexUnderFeed:
    """The job's topic, the expected ids in its index, and the stored ones."""

    def __init__(self, ingest):
        self.ingest, self.last, self.messages = ingest, {}, 0

    def feed(self, messages):
        """Write (document, message) in order; the message None is a tombstone."""
        self.ingest.feed([(doc.encode(), value) for doc, value in messages])
        self.messages += len(messages)
        self.last.update(messages)

    def expected_ids(self):
        alive = {d: v for d, v in self.last.items() if v is not None and b'"delete"' not in v}
        return {
            doc: set(expect([(None, value)], self.ingest.config).chunks)
            for doc, value in alive.items()
        }

    def stored_ids(self):
        """The ids in the collection by document."""
        store, found = self.ingest.store, {}
        for row in store.client.query(
            store.spec.name, filter='doc != ""', output_fields=["doc"], consistency_level="Strong"
        ):
            found.setdefault(row["doc"], set()).add(row["id"])
        return found

    def wait_until_settled(self, seconds=240):
        """The expected ids, once all messages are read and the index has held them for 3 s."""
        config, expected = self.ingest.config, self.expected_ids()
        wait_until(
            lambda: committed_offsets(config.group, config.topic) >= self.messages,
            seconds,
            "all is read",
        )
        wait_until(lambda: self.stored_ids() == expected, 60, "the index is as expected")
        time.sleep(3)  # a record still in flight would arrive by now
        assert self.stored_ids() == expected
        assert self.ingest.store.count() == sum(map(len, expected.values()))
        return expected


@pytest.fixture(scope="module")
def index(ingest):
    return IndexUnderFeed(ingest)


def kill(part, name):
    (found,) = (p for p in stack.processes(sage_home(), part) if name in p.name())
    os.kill(found.pid, signal.SIGKILL)


def names():
    return [f"doc/{n}" for n in range(DOCS)]


def test_documents_fed_twice_are_stored_once(index):
    first = [(doc, text(doc, 1, 200 + 40 * n)) for n, doc in enumerate(names())]

    index.feed(first)
    index.feed(first)

    assert sum(map(len, index.wait_until_settled().values())) > 3 * DOCS
    assert index.ingest.dead_letters() == []


def test_updates_and_deletes_leave_no_stale_chunk_despite_a_killed_taskmanager(index, capsys):
    before = index.stored_ids()
    shorter = [(doc, text(doc, 2, 40 + 10 * n)) for n, doc in enumerate(names())]
    deleted = [(doc, None) for doc in names()[::4]]
    deleted += [(doc, json.dumps({"id": doc, "op": "delete"}).encode()) for doc in names()[1::8]]
    restored = [(doc, text(doc, 3, 150)) for doc in names()[::8]]

    index.feed(shorter)
    wait_until(lambda: index.stored_ids() != before, 120, "the first update")
    index.feed(deleted)
    kill("taskmanager", "java")
    index.feed(restored)
    expected = index.wait_until_settled()

    with capsys.disabled():
        print(
            f"\nchunks {sum(map(len, before.values()))} of {len(before)} documents before, "
            f"{sum(map(len, expected.values()))} of {len(expected)} after "
            f"{len(shorter)} updates, {len(deleted)} deletes, {len(restored)} documents restored; "
            f"restarts {index.ingest.rest.restarts(index.ingest.job_id)}"
        )
    assert len(expected) == DOCS - len(deleted) + len(restored)
    assert index.ingest.rest.restarts(index.ingest.job_id) >= 1
    assert index.ingest.dead_letters() == []


def test_a_tombstone_with_an_empty_key_is_dead_lettered_and_deletes_no_document(index):
    before = index.stored_ids()

    index.ingest.feed([(b"", None)])
    index.messages += 1
    wait_until(lambda: len(index.ingest.dead_letters()) == 1, 60, "the dead letter")

    assert "no key with the document's id" in index.ingest.dead_letters()[0].reason
    assert index.stored_ids() == before


@pytest.mark.full
def test_while_milvus_hangs_the_job_waits_and_loses_no_update(index):
    restarts = index.ingest.rest.restarts(index.ingest.job_id)
    (server,) = (p for p in stack.processes(sage_home(), "milvus") if "milvus" in p.name())

    server.suspend()  # suspended, not killed: the supervisor would restart it immediately
    try:
        index.feed([(doc, text(doc, 4, 60)) for doc in names()])
        wait_until(lambda: "step 'vectors' waits" in log(), 90, "a line in the log")
        rss = worker_mib()
        index.feed([(doc, text(doc, 5, 30 + n)) for n, doc in enumerate(names())] * 20)
        time.sleep(20)
        assert worker_mib() < 1.2 * rss
    finally:
        server.resume()
    index.wait_until_settled()

    assert index.ingest.rest.restarts(index.ingest.job_id) == restarts


def log():
    return "".join(path.read_text() for path in (sage_home() / "logs").glob("**/*task*log"))


def worker_mib():
    workers = [p for p in stack.processes(sage_home(), "taskmanager") if "python" in p.name()]
    return sum(p.memory_info().rss for p in workers if psutil.pid_exists(p.pid)) / 2**20

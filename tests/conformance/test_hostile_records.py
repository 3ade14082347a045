"""Hostile records through all operators: each ends once, in an output or as a dead letter.

``SAGE_HOSTILE_RECORDS=2000`` is the whole form, ``SAGE_HOSTILE_SEED`` chooses other records.
"""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hostile_records import DIM, Ends, hostile_graph, hostile_records, unbalanced
from loopback_server import loopback_server
from minicluster import QUIET, FileSink, restore_environment, wait_for_workers
from waiting import wait_until

import sage_flink as sage
from sage_connectors import kafka
from sage_connectors.kafka_client import delete_topic, drain, feed
from sage_flink.common import Record, Settings
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import FlinkOptions
from sage_flink.flow.lists import ListSource
from sage_flink.inference import EchoPool

pytestmark = QUIET


class Engine(BaseHTTPRequestHandler):
    """The reference pool over HTTP."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        reply = asyncio.run(EchoPool().post(self.path, body, {}))
        self.send_response(reply.status)
        self.send_header("content-length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *_: object) -> None:
        """Log no request."""


@pytest.fixture(scope="module")
def records() -> tuple[Record, ...]:
    return hostile_records()


def ends_in(folder: Path, name: str) -> Ends:
    rows = sage.db.collection(f"hostile_{name}", dim=DIM, store="memory")
    points = sage.tsdb.bucket(f"hostile_{name}", store="memory")
    files = (FileSink(str(folder / end)) for end in ("answers", "documents", "topic", "failed"))
    answers, documents, topic, failed = files
    return Ends(answers, rows, points, documents, topic, failed)


def test_hostile_records_end_once_in_process(records, tmp_path: Path) -> None:
    ends = ends_in(tmp_path, "local")
    graph = hostile_graph(ListSource(records), ends, str(tmp_path / "log"))

    outcome = asyncio.run(sage.flow.run(graph, pool=EchoPool()))

    written = [record for step in outcome.written.values() for record in step]
    ended = written + [failed.record for failed in outcome.failed]
    assert unbalanced(records, (r.origin for r in ended), (r.id for r in ended)) == []
    assert all(outcome.written.values())
    assert ends.rows.open().count() == len(outcome.written["rows"])
    assert all(failed.reason for failed in outcome.failed)


@pytest.fixture
def minicluster() -> Iterator[None]:
    yield from restore_environment()
    wait_for_workers()


@pytest.mark.flink
@pytest.mark.timeout(900)
def test_hostile_records_end_once_on_flink(records, tmp_path: Path, minicluster) -> None:
    ends, log = ends_in(tmp_path, "flink"), tmp_path / "log"
    graph = hostile_graph(ListSource(records), ends, str(log))
    files = [ends.answers, ends.documents, ends.topic, ends.dead_letters]

    def ended() -> set[str]:
        found = {record.origin for file in files[:3] for record in file.read_records()}
        found |= {from_message(record).origin for record in ends.dead_letters.read_records()}
        return found

    with loopback_server(Engine) as port:
        settings = Settings(gateway_url=f"http://127.0.0.1:{port}")
        options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
        sage.flow.submit(graph, name="hostile", options=options, settings=settings)
        rows = ends.rows.open()
        stored = {r.id for r in records if r.headers["route"] in (b"rows", b"points")}
        others = {r.id for r in records} - stored
        wait_until(lambda: others <= ended(), 600, "all records of the other routes")
        wait_until(lambda: not missing_rows(records, ended(), rows), 120, "all rows")
        time.sleep(2)

    made = [record for file in files[:3] for record in file.read_records()]
    letters = [from_message(record) for record in ends.dead_letters.read_records()]
    assert unbalanced(others_of(records), ended(), [r.id for r in made + letters]) == []
    assert {letter.id: letter.step for letter in letters} == locally(records, tmp_path)
    assert log.read_text().splitlines() == ["decode"]  # no restart


def missing_rows(records, ended, rows) -> list[str]:
    ids = [r.id for r in records if r.headers["route"] == b"rows" and r.id not in ended]
    return [id_ for id_ in ids if not rows.count({id_})]


def others_of(records) -> list[Record]:
    return [r for r in records if r.headers["route"] not in (b"rows", b"points")]


def test_hostile_messages_reach_every_route(records) -> None:
    assert {record.headers["route"] for record in records} == {
        *(b"answers", b"rows", b"points", b"documents", b"topic")
    }


@pytest.fixture
def places() -> Iterator[str]:
    """A name for the topics, collection and bucket of a test; all but the last are deleted."""
    name = f"hostile_{uuid.uuid4().hex}"
    topics = [f"{name}.{end}" for end in ("in", "answers", "topic", "dead-letters")]
    for topic in topics:
        kafka(topic).prepare()
    yield name
    for topic in topics:
        delete_topic(topic)
    with closing(sage.db.collection(name, dim=DIM).open()) as rows:
        rows.drop()


def in_topic(records, topic: str) -> tuple[Record, ...]:
    """The records as a source reads them after they were written to one partition in order."""
    ids = (f"{topic}/0/{n}" for n in range(len(records)))
    return tuple(r.replace(id=i, origin=i) for r, i in zip(records, ids, strict=True))


@pytest.mark.flink
@pytest.mark.service
@pytest.mark.timeout(900)
def test_hostile_records_end_once_between_real_servers(
    records, tmp_path: Path, places, minicluster
) -> None:
    read, answers, topic, dead = (
        f"{places}.{end}" for end in ("in", "answers", "topic", "dead-letters")
    )
    feed(read, [(r.key, r.value, r.headers, 5) for r in records])
    records = in_topic(records, read)
    log, documents = tmp_path / "log", FileSink(str(tmp_path / "documents"))
    rows = sage.db.collection(places, dim=DIM)
    ends = Ends(
        kafka(answers), rows, sage.tsdb.bucket(places), documents, kafka(topic), kafka(dead)
    )
    source = kafka(read, start="earliest", bounded=True)

    with loopback_server(Engine) as port, closing(rows.open()) as stored:
        settings = Settings(gateway_url=f"http://127.0.0.1:{port}")
        options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
        graph = hostile_graph(source, ends, str(log))
        sage.flow.submit(graph, name=places, options=options, settings=settings)
        local = locally(records, tmp_path)
        wanted = local.keys() - {r.id for r in records if r.headers["route"] == b"topic"}
        wait_until(lambda: wanted <= {*letters_of(dead)}, 600, "the dead letters")
        wait_until(lambda: not missing_rows(records, local, stored), 120, "all rows")
        sent = [r for r in records if r.headers["route"] == b"topic"]
        wait_until(lambda: not missing_messages(sent, topic, dead), 120, "all messages")

    letters = letters_of(dead)
    assert {i: letters[i] for i in wanted} == {i: local[i] for i in wanted}  # at the same steps
    assert log.read_text().splitlines() == ["decode"]  # no restart


def letters_of(topic: str) -> dict[str, str]:
    """The step of each dead letter, by id; fails where an id has two."""
    letters = [from_message(message) for message in drain(topic)]
    assert len({letter.id for letter in letters}) == len(letters)
    return {letter.id: letter.step for letter in letters}


def locally(records, folder: Path) -> dict[str, str]:
    """The step of each record that fails in process, by id."""
    graph = hostile_graph(ListSource(records), ends_in(folder, "twin"), str(folder / "twin.log"))
    outcome = asyncio.run(sage.flow.run(graph, pool=EchoPool()))
    return {failed.id: failed.step for failed in outcome.failed}


def missing_messages(records, topic: str, dead: str) -> list[str]:
    """Those that are in neither topic, or in both."""
    found = Counter(message.key for message in drain(topic))
    letters = letters_of(dead)
    ended = [found[r.key or r.id.encode()] + (r.id in letters) for r in records if r.key is None]
    return [] if set(ended) <= {1} else ["some"]

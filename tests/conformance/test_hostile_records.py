"""Hostile records through all operators: each ends once, in an output or as a dead letter.

``SAGE_HOSTILE_RECORDS=2000`` is the whole form, ``SAGE_HOSTILE_SEED`` chooses other records.
"""

import asyncio
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hostile_records import DIM, Ends, hostile_graph, hostile_records, unbalanced
from loopback_server import loopback_server
from minicluster import QUIET, FileSink
from waiting import wait_until

import sage_flink as sage
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


@pytest.mark.slow
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


def locally(records, folder: Path) -> dict[str, str]:
    """The step of each record that fails in process, by id."""
    graph = hostile_graph(ListSource(records), ends_in(folder, "twin"), str(folder / "twin.log"))
    outcome = asyncio.run(sage.flow.run(graph, pool=EchoPool()))
    return {failed.id: failed.step for failed in outcome.failed}

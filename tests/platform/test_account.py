"""``sage jobs account``, asked of a small server that answers as Flink's REST does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.common import ConfigError, StackError
from sage_flink.platform.balance import STEPS, Step, shape

JOB = "0123456789abcdef0123456789abcdef"
PIPELINE = (
    Step("in", "read", ()),
    Step("ask", "call", ("in",)),
    Step("out", "write", ("ask",)),
    Step("dead-letters", "dead_letters", ()),
)
COUNTS = {
    "in.read": 1200,
    "in.emitted": 1200,
    "ask.read": 1200,
    "ask.asked": 1200,
    "ask.answered": 1200,
    "ask.emitted": 1190,
    "ask.dead_lettered": 10,
    "out.read": 1190,
    "out.written": 1190,
    "dead-letters.read": 10,
    "dead-letters.written": 10,
}


class Cluster(ThreadingHTTPServer):
    """One job, its parameters, and what it has accumulated at each further question."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.state, self.parameters = "RUNNING", {STEPS: shape(PIPELINE)}
        self.stated = [COUNTS]

    def answer(self, path):
        match path.removeprefix(f"/jobs/{JOB}"):
            case "/jobs/overview":
                job = {"jid": JOB, "name": "asks", "state": self.state}
                return {"jobs": [{**job, "start-time": 1, "duration": 1}]}
            case "/config":
                return {"execution-config": {"user-config": self.parameters}}
            case "/accumulators":
                counts = self.stated.pop(0) if len(self.stated) > 1 else self.stated[0]
                books = json.dumps({"counts": counts, "opening": {}})
                one = {"name": "sage.account", "type": "CountersAccumulator", "value": books}
                return {"user-task-accumulators": [one] if counts else []}


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(self.server.answer(self.path)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def cluster(monkeypatch):
    with Cluster() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("SAGE_FLINK_URL", f"http://127.0.0.1:{server.server_address[1]}")
        yield server
        server.shutdown()
        thread.join()


def account(*words):
    return CliRunner().invoke(cli.app, ["jobs", "account", "asks", *words], env={"COLUMNS": "90"})


def test_an_account_that_closes_is_a_table_and_status_0(cluster):
    done = account()

    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert done.exit_code == 0
    assert lines == [
        "step read emitted written dead lettered in flight",
        "in 1,200 1,200",
        "ask 1,200 1,190 10 0",
        "out 1,190 1,190 0",
        "dead-letters 10 10",
        "the account of asks (RUNNING) closes",
    ]


def test_a_doctored_account_names_the_place_and_ends_with_1(cluster):
    cluster.stated = [COUNTS | {"out.written": 1189}]

    done = account("--wait", "0")

    assert done.exit_code == 1
    assert (
        "does not add up: out: 1,190 read, 1,189 written + 0 dead-lettered (1 missing)"
        in done.output
    )
    assert "(RUNNING) does not close" in done.output


def test_records_in_flight_are_waited_for(cluster):
    under_way = {"ask.answered": 1195, "ask.emitted": 1185, "out.read": 1185, "out.written": 1185}
    cluster.stated = [{}, COUNTS | under_way, COUNTS]

    done = account("--json", "--wait", "20")

    assert (done.exit_code, json.loads(done.output)["closes"]) == (0, True)
    assert cluster.stated == [COUNTS]


@pytest.mark.parametrize(
    ("state", "words"),
    [("RUNNING", "in flight: ask 5"), ("CANCELED", "left in the last checkpoint: ask 5")],
)
def test_what_stays_in_flight_is_said_with_the_step(cluster, state, words):
    under_way = {"ask.answered": 1195, "ask.emitted": 1185, "out.read": 1185, "out.written": 1185}
    cluster.state, cluster.stated = state, [COUNTS | under_way]

    done = account("--wait", "0")

    assert done.exit_code == 1
    assert words in done.output
    assert "does not add up" not in done.output


def test_a_job_without_an_account_says_what_to_do(cluster):
    cluster.stated = [{}]
    starting = account("--wait", "0").exception
    cluster.parameters = {}
    foreign = account("--wait", "0").exception

    assert isinstance(starting, StackError)
    assert "no account yet" in str(starting)
    assert isinstance(foreign, ConfigError)
    assert "keeps no account" in str(foreign)

"""``sage jobs account`` against a small server that responds like Flink's REST API."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.common import ConfigError, StackError
from sage_flink.platform.record_accounting import STEPS, CountedStep, encode_steps

JOB = "0123456789abcdef0123456789abcdef"
PIPELINE = (
    CountedStep("in", "read", ()),
    CountedStep("ask", "call", ("in",)),
    CountedStep("out", "write", ("ask",)),
    CountedStep("dead-letters", "dead_letters", ()),
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


class FlinkRestFake(ThreadingHTTPServer):
    """One job: its parameters, and the counters that each further request returns."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), RestHandler)
        self.state, self.parameters = "RUNNING", {STEPS: encode_steps(PIPELINE)}
        self.snapshots = [COUNTS]
        self.stale_configs = 0
        self.failures = []

    def answer(self, path):
        match path.removeprefix(f"/jobs/{JOB}"):
            case "/jobs/overview":
                job = {"jid": JOB, "name": "asks", "state": self.state}
                return {"jobs": [{**job, "start-time": 1, "duration": 1}]}
            case "/config":
                self.stale_configs -= 1
                parameters = self.parameters if self.stale_configs < 0 else {}
                return {"execution-config": {"user-config": parameters}}
            case "/exceptions?maxExceptions=100":
                return {"exceptionHistory": {"entries": self.failures}}
            case "/accumulators":
                counts = self.snapshots.pop(0) if len(self.snapshots) > 1 else self.snapshots[0]
                snapshot = json.dumps({"counts": counts, "opening": {}})
                one = {"name": "sage.account", "type": "CountersAccumulator", "value": snapshot}
                return {"user-task-accumulators": [one] if counts else []}


class RestHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(self.server.answer(self.path)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Silence the log."""


@pytest.fixture
def cluster(monkeypatch):
    with FlinkRestFake() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("SAGE_FLINK_URL", f"http://127.0.0.1:{server.server_address[1]}")
        yield server
        server.shutdown()
        thread.join()


def account(*words):
    return CliRunner().invoke(cli.app, ["jobs", "account", "asks", *words], env={"COLUMNS": "90"})


def test_balanced_counts_are_a_table_and_exit_status_0(cluster):
    done = account()

    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert done.exit_code == 0
    assert lines == [
        "step read emitted written dead lettered dropped in flight",
        "in 1,200 1,200",
        "ask 1,200 1,190 10 0",
        "out 1,190 1,190 0",
        "dead-letters 10 10",
        "the record counts of asks (RUNNING) are balanced",
    ]


def test_a_missing_record_is_reported_with_its_step_and_exit_status_1(cluster):
    cluster.snapshots = [COUNTS | {"out.written": 1189}]

    done = account("--wait", "0")

    assert done.exit_code == 1
    assert (
        "does not add up: out: 1,190 read, 1,189 written + 0 dead-lettered (1 missing)"
        in done.output
    )
    assert "(RUNNING) are not balanced" in done.output


def test_the_command_waits_for_records_in_flight(cluster):
    in_flight = {"ask.answered": 1195, "ask.emitted": 1185, "out.read": 1185, "out.written": 1185}
    cluster.snapshots = [{}, COUNTS | in_flight, COUNTS]

    done = account("--json", "--wait", "20")

    assert (done.exit_code, json.loads(done.output)["balanced"]) == (0, True)
    assert cluster.snapshots == [COUNTS]


@pytest.mark.parametrize(
    ("state", "text"),
    [("RUNNING", "in flight: ask 5"), ("CANCELED", "left in the last checkpoint: ask 5")],
)
def test_records_that_stay_in_flight_are_reported_with_their_step(cluster, state, text):
    in_flight = {"ask.answered": 1195, "ask.emitted": 1185, "out.read": 1185, "out.written": 1185}
    cluster.state, cluster.snapshots = state, [COUNTS | in_flight]

    done = account("--wait", "0")

    assert done.exit_code == 1
    assert text in done.output
    assert "does not add up" not in done.output


def test_the_error_for_a_job_without_counters_names_the_next_step(cluster):
    cluster.snapshots = [{}]
    starting = account("--wait", "0").exception
    cluster.parameters = {}
    foreign = account("--wait", "0").exception

    assert isinstance(starting, StackError)
    assert "no record counters yet" in str(starting)
    assert isinstance(foreign, ConfigError)
    assert "has no record counters; submit it" in str(foreign)


def test_a_configuration_cached_before_the_restart_is_no_lack_of_counters(cluster):
    cluster.stale_configs = 3

    assert account("--wait", "0").exit_code == 0


FAILURE = {
    "timestamp": 1,
    "taskName": "ask (1/1)#0",
    "stacktrace": "a.B: outer\nCaused by: c.D: no such word",
}


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (
            "FAILED",
            "is FAILED and took no checkpoint.* committed: step ask: c.D: no such word; see",
        ),
        ("CANCELED", "is CANCELED and took no checkpoint, .* was not committed; see `sage jobs"),
        ("RESTARTING", "no record counters yet.*the last time because step ask: c.D: no such word"),
    ],
)
def test_a_job_that_ended_or_restarts_before_its_first_checkpoint_says_why(cluster, state, text):
    cluster.state, cluster.snapshots, cluster.failures = state, [{}], [FAILURE]

    error = account("--wait", "0").exception

    assert isinstance(error, StackError)
    assert re.search(text, str(error))


def test_the_counts_of_a_failed_job_come_with_its_failure(cluster):
    cluster.state, cluster.failures = "FAILED", [FAILURE]

    assert "it failed: step ask: c.D: no such word; see `sage jobs show asks`" in account().output
    assert json.loads(account("--json").output)["failure"]["reason"] == "c.D: no such word"

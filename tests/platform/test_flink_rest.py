"""Tests of the client of Flink's REST API: what it waits for, what it reports."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sage_flink.common import StackError
from sage_flink.platform.flink_rest import FlinkRest

ELECTION = "Service temporarily unavailable due to an ongoing leader election. Please refresh."


class RestHandler(BaseHTTPRequestHandler):
    """Sends the next of the server's responses, the last one again and again."""

    def do_GET(self):
        self.respond_from(self.server.responses)

    def do_PATCH(self):
        self.respond_from(self.server.responses_to_changes)

    def respond_from(self, responses):
        status, content = responses.pop(0) if len(responses) > 1 else responses[0]
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Silence the log."""


@pytest.fixture
def cluster():
    with ThreadingHTTPServer(("127.0.0.1", 0), RestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def rest(cluster):
    with FlinkRest(f"http://127.0.0.1:{cluster.server_port}") as client:
        yield client


def test_a_request_during_a_leader_election_is_sent_again_until_a_leader_answers(cluster, rest):
    election = (503, {"errors": [ELECTION]})
    cluster.responses = [election, election, (200, {"jobs": []})]
    assert rest.jobs() == []


@pytest.mark.parametrize("status", [500, 503])
def test_any_other_error_of_flink_is_reported_without_a_wait(cluster, rest, status):
    cluster.responses = [(status, {"errors": ["out of slots"]}), (200, {"jobs": []})]
    with pytest.raises(StackError, match=f"{status}.*out of slots"):
        rest.jobs()


@pytest.mark.parametrize("state", ["FINISHED", "FAILED", "CANCELED"])
def test_a_job_that_ends_before_it_is_cancelled_stays_as_it_is(cluster, rest, state):
    cluster.responses_to_changes = [(409, {"errors": ["has already reached a terminal state"]})]
    cluster.responses = [(200, {"state": state})]
    rest.cancel("1", timeout_s=0)


def test_a_running_job_that_flink_does_not_cancel_is_an_error(cluster, rest):
    cluster.responses_to_changes = [(500, {"errors": ["out of memory"]})]
    cluster.responses = [(200, {"state": "RUNNING"})]
    with pytest.raises(StackError, match=r"500.*out of memory"):
        rest.cancel("1")

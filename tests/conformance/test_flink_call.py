"""A call on Flink: spread over gateways, with tenant and request id.

A MiniCluster in this process runs the job.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from minicluster import LOCAL, QUIET, DiscardSink, FileSink
from waiting import wait_until

import sage_flink as sage
from sage_flink.common import Record, Settings
from sage_flink.common.records import derived_id
from sage_flink.flow import Admission
from sage_flink.flow.lists import ListSource

pytestmark = [
    pytest.mark.flink,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("restored_environment", "no_worker_left"),
    *QUIET,
]


@dataclass(frozen=True)
class EchoCall:
    """Sends the record's value, which returns in upper case; an empty value sends no request."""

    mode: Literal["post", "embed"] = "post"
    model: str = "m"
    path: str = "/v1/chat/completions"

    def request(self, record: Record) -> bytes:
        value: bytes = record.value
        return json.dumps({"text": value.decode()}).encode() if value else b""

    def answer(self, record: Record, body: bytes) -> Record:
        return record.replace(value=json.loads(body)["text"].upper().encode())


@contextmanager
def gateway(received: list[dict[str, str]], status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log no request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_call_spreads_over_gateways_and_sends_tenant_and_request_id(tmp_path: Path) -> None:
    records = [
        Record("a", b"one", origin="a", headers={"sage-priority": b"high"}),
        Record("b", b"", origin="b"),
        Record("c", b"late", origin="c", headers={"sage-deadline-ms": b"1"}),
        *(Record(f"d{n}", b"more", origin=f"d{n}") for n in range(20)),
    ]
    received: list[dict[str, str]] = []
    refused: list[dict[str, str]] = []
    sink = FileSink(str(tmp_path / "records"))
    graph = (
        sage.flow.read("in", ListSource(tuple(records)))
        .call(
            "ask",
            EchoCall(),
            capacity=8,
            timeout_s=20,
            admission=Admission(tenant="t1", slack_s=60),
        )
        .write("out", sink)
        .dead_letters_to(DiscardSink())
    )

    with gateway(received) as healthy, gateway(refused, 503) as failing:
        settings = Settings(gateway_url=f"{healthy},{failing}")
        sage.flow.submit(graph, name="native-call", options=LOCAL, settings=settings)
        wait_until(lambda: len(sink.read_records()) >= 22, 120, "all but the overdue record")

    values = {record.id: record.value for record in sink.read_records()}
    expected = {"a": b"ONE", "b": b"", **{f"d{n}": b"MORE" for n in range(20)}}
    assert values == expected
    assert len(received) == 21
    assert 1 <= len(refused) <= 12
    first = next(request for request in received if request["x-sage-priority"] == "high")
    expected_id = derived_id("a", "native-call/ask", 0)
    assert (first["x-request-id"], first["idempotency-key"]) == (expected_id, expected_id)
    assert first["x-sage-tenant"] == "t1"
    assert first["traceparent"].startswith(f"00-{expected_id}-")
    assert int(first["x-sage-deadline-ms"]) > 0
    assert {request["x-sage-attempt"] for request in received} <= {"1", "2"}

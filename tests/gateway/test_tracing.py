"""Traces go to a collector, failures to the log; both name the request."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from gateway_process import gateway_process
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from waiting import wait_until

from sage_flink.common import ConfigError
from sage_gateway.observability.tracing import tracing

TALK = {"talk": {"engine": "fake", "kind": "chat"}}
TRACE, ABOVE = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """A collector that accepts OTLP over HTTP and records the spans."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Export)
        self.spans: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Export(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def environment(collector: Collector, share: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_TRACES_SAMPLER_ARG": share,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }


def ask(client: Any, words: str, **headers: str) -> int:
    body = {"model": "talk", "messages": [{"role": "user", "content": words}]}
    return int(client.post("/v1/chat/completions", json=body, headers=headers).status_code)


def attributes(span: Any) -> dict[str, Any]:
    found = {one.key: one.value for one in span.attributes}
    return {k: v.string_value or v.int_value for k, v in found.items()}


def test_a_sampled_trace_is_continued_and_others_are_sampled_by_share(tmp_path, collector):
    more = environment(collector, "0")
    with gateway_process(tmp_path, TALK, more=more) as (_, client):
        ask(client, "hello")
        ask(client, "hello", traceparent=f"00-{TRACE}-{ABOVE}-00")
        headers = {"x-request-id": "r1", "x-sage-job": "j1"}
        ask(client, "hello", traceparent=f"00-{TRACE}-{ABOVE}-01", **headers)
        wait_until(lambda: bool(collector.spans), 10, "a span")

    [span] = collector.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, ABOVE)
    assert span.name == "POST /v1/chat/completions"
    found = attributes(span)
    assert (found["sage.request_id"], found["sage.job"]) == ("r1", "j1")
    assert (found["gen_ai.request.model"], found["http.response.status_code"]) == ("talk", 200)
    assert found["gen_ai.usage.output_tokens"] > 0


def test_a_record_of_a_stream_is_sampled_by_its_trace_id(tmp_path, collector):
    more = environment(collector, "1")
    with gateway_process(tmp_path, TALK, more=more) as (_, client):
        ask(client, "hello", traceparent=f"00-{TRACE}-{ABOVE}-00")
        wait_until(lambda: bool(collector.spans), 10, "a span")

    assert collector.spans[0].trace_id.hex() == TRACE


def test_a_failure_is_a_line_of_json_that_names_the_request(tmp_path):
    with gateway_process(tmp_path, TALK, words=["--log", "json"]) as (_, client):
        status = ask(client, "status 500", **{"x-request-id": "r1"})
        ask(client, "hello")
        log = next(tmp_path.glob("gateway-*.log"))
        wait_until(lambda: "r1" in log.read_text(), 10, "a line")

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    [failed] = [line for line in lines if "request_id" in line]
    assert failed["status"] == status >= 500
    assert (failed["request_id"], failed["model"], failed["level"]) == ("r1", "talk", "WARNING")


def test_without_a_collector_there_is_no_tracing():
    assert tracing({}) is None


@pytest.mark.parametrize("share", ["many", "1.5", "-1"])
def test_the_error_for_a_wrong_share_names_the_valid_range(share):
    with pytest.raises(ConfigError, match="OTEL_TRACES_SAMPLER_ARG must be 0 to 1"):
        tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_SAMPLER_ARG": share})

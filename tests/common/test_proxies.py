"""A proxy in the environment is not asked for this machine's own servers."""

import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from loopback_server import loopback_server

from sage_flink.cli.gateway_client import call_gateway
from sage_flink.common.proxies import bypass_grpc_proxy, is_loopback
from sage_flink.platform.flink_rest import FlinkRest

EXCEPTIONS = "no_grpc_proxy"


class Server(BaseHTTPRequestHandler):
    """A Flink without jobs, and a gateway."""

    def do_GET(self) -> None:
        body = b'{"jobs": []}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server here, in an environment with proxies that lead nowhere."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy", EXCEPTIONS):
        monkeypatch.delenv(name, raising=False)
    with loopback_server(Server) as port:
        yield f"http://127.0.0.1:{port}"


def test_flink_on_this_machine_is_reached_without_the_proxy(url: str) -> None:
    with FlinkRest(url) as rest:
        assert rest.jobs() == []


def test_the_gateway_on_this_machine_is_reached_without_the_proxy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_GATEWAY_URL", url)
    monkeypatch.setenv("SAGE_GATEWAY_KEY", "key")

    assert call_gateway("GET", "/pool/models") == {"jobs": []}


def test_grpc_keeps_the_exceptions_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXCEPTIONS, "intern")
    for _ in range(2):
        bypass_grpc_proxy("http://127.0.0.1:19530")
    bypass_grpc_proxy("https://milvus.example:443")

    assert os.environ.get(EXCEPTIONS) == "intern,127.0.0.1"


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:1", True),
        ("http://127.8.8.8", True),
        ("http://[::1]:1", True),
        ("http://10.0.0.1", False),
        ("https://localhost.example", False),
        ("", False),
    ],
)
def test_loopback_addresses_are_known(url: str, here: bool) -> None:
    assert is_loopback(url) is here

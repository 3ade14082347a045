"""A proxy in the environment is not asked for this machine's own servers."""

import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from loopback_server import loopback_server

from sage_connectors import HttpTable
from sage_connectors.kafka_security import library, python_options
from sage_connectors.server_check import check_server
from sage_flink.cli.gateway_client import call_gateway
from sage_flink.common.connections import GatewayConnection, KafkaConnection
from sage_flink.common.proxies import bypass_grpc_proxy, is_loopback
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.stack import flink_launch
from sage_flink.platform.stack.stack_directory import StackDirectory

EXCEPTIONS = "no_grpc_proxy"


class Server(BaseHTTPRequestHandler):
    """A Flink without jobs, a gateway with one model, a table, and a service for tokens."""

    def do_GET(self) -> None:
        self._send(b'{"jobs": [], "data": [{"id": "talk"}]}')

    def do_POST(self) -> None:
        self._send(b'{"access_token": "token", "expires_in": 300}')

    def _send(self, body: bytes) -> None:
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


def test_the_workers_of_the_stack_reach_their_jvm_without_the_proxy(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("no_proxy", "intranet")

    environment = flink_launch.environment(StackDirectory.at(tmp_path))

    assert environment[EXCEPTIONS] == "intranet,localhost"


def test_the_gateway_on_this_machine_is_reached_without_the_proxy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_GATEWAY_URL", url)
    monkeypatch.setenv("SAGE_GATEWAY_KEY", "key")

    assert "jobs" in call_gateway("GET", "/pool/models")


def test_a_gateway_of_a_connection_is_reached_without_the_proxy(url: str) -> None:
    connection = GatewayConnection(name="pool", url=url)

    assert check_server(connection) == "1 models"


def test_a_table_on_this_machine_is_reached_without_the_proxy(url: str) -> None:
    reader = HttpTable(f"{url}/{{key}}").reader()

    assert reader.rows(["a"])["a"]["jobs"] == []
    reader.close()


def test_a_token_service_on_this_machine_is_reached_without_the_proxy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_SECRET", "secret")
    connection = KafkaConnection(
        servers="127.0.0.1:9",
        protocol="SASL_PLAINTEXT",
        mechanism="OAUTHBEARER",
        token_url=url,
        client_id="sage",
        client_secret="env:CLIENT_SECRET",
    )

    library()  # as every client does
    known = {"sasl_oauth_token_provider": None}
    provider = python_options(connection, known)["sasl_oauth_token_provider"]

    assert provider.token() == "token"


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

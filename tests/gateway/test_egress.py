"""More than forty attempts to reach an internal server, all refused."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from sage_flink.common import ConfigError
from sage_gateway.engines.egress import (
    PinnedResolver,
    Target,
    is_permitted,
    resolve,
    session,
    target,
)

LISTED = ("api.example.com", "localhost", "10.1.0.0/16", "192.0.2.7")
HITS: list[str] = []

#: Sources with PORT in them; all must be refused, since their host is not listed correctly.
SOURCES = [
    "http://127.0.0.1:PORT/v1",
    "http://127.1:PORT/v1",
    "http://127.0.1:PORT/v1",
    "http://0:PORT/v1",
    "http://0.0.0.0:PORT/v1",
    "http://2130706433:PORT/v1",
    "http://017700000001:PORT/v1",
    "http://0177.0.0.1:PORT/v1",
    "http://0x7f000001:PORT/v1",
    "http://0x7f.0.0.1:PORT/v1",
    "http://0x7f.1:PORT/v1",
    "http://127.0.0.1.:PORT/v1",
    "http://127.000.000.001:PORT/v1",
    "http://127.0.0.1%00.example.com:PORT/v1",
    "http://[::1]:PORT/v1",
    "http://[::]:PORT/v1",
    "http://[0:0:0:0:0:0:0:1]:PORT/v1",
    "http://[::ffff:127.0.0.1]:PORT/v1",
    "http://[::ffff:7f00:1]:PORT/v1",
    "http://[::127.0.0.1]:PORT/v1",
    "http://[64:ff9b::7f00:1]:PORT/v1",
    "http://[2002:7f00:1::]:PORT/v1",
    "http://[fe80::1%25lo]:PORT/v1",
    "http://[::1%25lo]:PORT/v1",
    "http://169.254.169.254/latest/meta-data",
    "http://[fd00:ec2::254]/latest/meta-data",
    "http://metadata.google.internal/v1",
    "http://localhost.localdomain:PORT/v1",
    "http://ip6-localhost:PORT/v1",
    "http://LOCALHOST.:PORT/v1",
    "http://127.0.0.1.nip.io:PORT/v1",
    "http://api.example.com@127.0.0.1:PORT/v1",
    "http://api.example.com:x@127.0.0.1:PORT/v1",
    "http://127.0.0.1:PORT@api.example.com/v1",
    "http://api.example.com\\@127.0.0.1:PORT/v1",
    "http://127.0.0.1:PORT\\@api.example.com/v1",
    "http://127.0.0.1:PORT#@api.example.com/v1",
    "http://127.0.0.1:PORT?@api.example.com/v1",
    "http://api.example.com#@127.0.0.1:PORT/v1",
    "http://api.example.com.127.0.0.1.nip.io:PORT/v1",
    "http://xapi.example.com:PORT/v1",
    "http://api.example.com.evil.example:PORT/v1",
    "http://①②⑦.⓪.⓪.①:PORT/v1",
    "http://１２７.0.0.1:PORT/v1",
    "http://loc\u00adalhost:PORT/v1",
    "http://127。0。0。1:PORT/v1",
    "http://%31%32%37.0.0.1:PORT/v1",
    " http://127.0.0.1:PORT/v1",
    "http://127.0.0.1:PORT/v1\r\nHost: api.example.com",
    "http:\t//127.0.0.1:PORT/v1",
    "http:127.0.0.1:PORT/v1",
    "//127.0.0.1:PORT/v1",
    "///127.0.0.1:PORT/v1",
    "127.0.0.1:PORT/v1",
    "file:///etc/passwd",
    "gopher://127.0.0.1:PORT/_GET",
    "ftp://127.0.0.1:PORT/v1",
    "unix:///var/run/docker.sock",
    "javascript:alert(1)",
    "http://10.2.0.1:PORT/v1",
    "http://192.0.2.8:PORT/v1",
    "http://[::ffff:10.1.0.1]:PORT/v1",
    "http://api.example.com:99999/v1",
    "http:///v1",
    "http://",
    "",
]


class Canary(BaseHTTPRequestHandler):
    """A server that records every request."""

    def do_GET(self) -> None:
        HITS.append(self.path)
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *args: object) -> None:
        pass


class SixCanary(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@pytest.fixture(scope="module")
def canary() -> Iterator[int]:
    """An internal server on all of 127.0.0.0/8 and, on the same port, on ::1 if there is IPv6."""
    servers: list[ThreadingHTTPServer] = [ThreadingHTTPServer(("0.0.0.0", 0), Canary)]
    port: int = servers[0].server_address[1]
    with contextlib.suppress(OSError):  # without IPv6
        servers.append(SixCanary(("::1", port), Canary))
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    HITS.clear()
    assert httpx.get(f"http://127.0.0.1:{port}/alive", verify=False).status_code == 200
    assert HITS == ["/alive"]
    HITS.clear()
    yield port
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def guarded_gateway(start: Any, fake: Any) -> Iterator[Any]:
    """A gateway with a list of allowed hosts."""
    with start({"talk": fake()}, pool={"engine_hosts": list(LISTED)}) as gateway:
        yield gateway


def test_the_corpus_is_large() -> None:
    assert len(set(SOURCES)) >= 40


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_with_an_unlisted_host_is_refused(source: str) -> None:
    with pytest.raises(ConfigError):
        target(source.replace("PORT", "8080"), LISTED)


def test_no_server_is_reached_over_the_admin_route(guarded_gateway: Any, canary: int) -> None:
    answers = {}
    for number, source in enumerate(SOURCES):
        spec = {"engine": "remote", "kind": "chat", "source": source.replace("PORT", str(canary))}
        answer = guarded_gateway.client.put(f"/pool/models/m{number}", json=spec)
        answers[source] = (answer.status_code, answer.json()["error"]["code"])

    assert set(answers.values()) == {(400, "model_refused")}, answers
    assert HITS == []
    assert [m["id"] for m in guarded_gateway.client.get("/pool/models").json()["data"]] == ["talk"]


def test_a_listed_name_with_a_private_address_is_refused(guarded_gateway: Any, canary: int) -> None:
    spec = {"engine": "remote", "kind": "chat", "source": f"http://localhost:{canary}/v1"}
    guarded_gateway.client.put("/pool/models/rebound", json=spec)
    model = guarded_gateway.pool.models["rebound"]
    guarded_gateway.until(lambda: model.replica_slots[0].replica.restarts > 0)

    assert "which is not public; add that to engine_hosts" in model.replica_slots[0].replica.reason
    assert guarded_gateway.chat("echo hi", model="rebound").status_code == 503
    guarded_gateway.client.delete("/pool/models/rebound")
    assert HITS == []


@pytest.mark.parametrize(
    "more",
    [
        {"base_url": "http://127.0.0.1:PORT/v1"},
        {"api_base": "http://127.0.0.1:PORT/v1"},
        {"source": "http://127.0.0.1:PORT/v1"},
        {"messages": [{"role": "user", "content": "http://127.0.0.1:PORT/v1"}]},
        {"model": "http://127.0.0.1:PORT/v1"},
    ],
)
def test_a_request_cannot_change_the_target(
    guarded_gateway: Any, canary: int, more: dict[str, Any]
) -> None:
    messages = [{"role": "user", "content": "echo hi"}]
    body = {"model": "talk", "messages": messages, **more}
    text = httpx.Request("POST", "http://x", json=body).content.replace(b"PORT", b"%d" % canary)
    headers = {"x-forwarded-host": f"127.0.0.1:{canary}", "host": f"127.0.0.1:{canary}"}
    guarded_gateway.client.post("/v1/chat/completions", content=text, headers=headers)

    assert HITS == []


def test_a_redirect_is_an_error_and_is_not_followed(start: Any, fake: Any, canary: int) -> None:
    away = ["--redirect", f"http://127.0.0.2:{canary}/v1/chat/completions"]
    with start({"there": fake(arguments=away)}) as there:
        port = there.pool.models["there"].replica_slots[0].launch.port
        spec = {"engine": "remote", "kind": "chat", "source": f"http://127.0.0.1:{port}/v1"}
        pool = {"engine_hosts": ["127.0.0.1"]}
        with start({"talk": {**spec, "remote_model": "there"}}, pool=pool) as gateway:
            answer = gateway.chat("echo hi")

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_error")
    assert "location" not in answer.headers
    assert HITS == []


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("10.1.200.3", True),  # listed
        ("192.0.2.7", True),
        ("10.2.0.1", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("192.168.1.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.1.0.1", False),  # the inner address is listed, the mapped one is not
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::1", False),
        ("2001:0:7f00:1::1", False),
        ("::7f00:1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_an_address_and_its_inner_addresses_must_be_public_or_listed(
    address: str, may: bool
) -> None:
    assert is_permitted(address, LISTED) is may


@pytest.mark.parametrize(
    ("source", "base"),
    [
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://API.example.com/v1/", "https://api.example.com/v1"),
        ("https://api.example.com:8443/openai/v1", "https://api.example.com:8443/openai/v1"),
        ("https://api.example.com/v1beta/openai", "https://api.example.com/v1beta/openai"),
        ("http://10.1.2.3:8000", "http://10.1.2.3:8000/v1"),
        ("http://192.0.2.7/", "http://192.0.2.7/v1"),
    ],
)
def test_a_listed_host_is_a_target_below_its_own_path(source: str, base: str) -> None:
    assert target(source, LISTED).address("/v1/models") == base + "/models"


async def test_a_name_is_resolved_once_and_every_address_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"localhost is at .*, which is not public"):
        await resolve(target("http://localhost:1/v1", LISTED))

    every = (*LISTED, "127.0.0.0/8", "::1")
    found = await resolve(target("http://localhost:1/v1", every))
    assert set(found) <= {"127.0.0.1", "::1"}


async def test_connections_use_the_checked_addresses_after_the_name_has_changed(
    canary: int,
) -> None:
    silent = socket.create_server(("127.0.0.3", 0))
    port = silent.getsockname()[1]
    to = Target(target("http://localhost:1/v1", LISTED).url.with_port(port), LISTED)
    async with session(to, ["127.0.0.3"]) as client:
        asked = asyncio.ensure_future(client.get(to.url))
        came, _ = await asyncio.get_running_loop().run_in_executor(None, silent.accept)
        asked.cancel()
        came.close()
    silent.close()

    with pytest.raises(OSError, match=r"evil\.example is not localhost"):
        await PinnedResolver("localhost", ["127.0.0.3"]).resolve("evil.example", 80)

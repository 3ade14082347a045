"""The gateway's own protocol over TLS."""

import asyncio
import ssl
from pathlib import Path

import orjson
import pytest
from app_server import serve_app

from sage_flink.common import ConfigError
from sage_flink.platform.stack import certificates
from sage_flink.platform.stack.server import trusting
from sage_flink.platform.stack.stack_directory import StackDirectory
from sage_gateway.app import tls_settings
from sage_gateway.http.asgi_app import GatewayApp
from sage_gateway.requests.request import Request
from sage_gateway.requests.response import DONE, Response, StreamingResponse
from sage_gateway.tenants import Keys, Tenants
from sage_gateway.tenants.memory import MemoryTenantStore

KEY = "sk-sage-test"
LARGE = 2_000_000


class Echo:
    """Answers with the request's message, as events if the request says so."""

    async def handle(self, request: Request) -> Response | StreamingResponse:
        text = request.fields()["messages"][0]["content"].encode()
        if not request.fields().get("stream"):
            return Response(200, text)

        async def events() -> object:
            yield b"data: " + text + b"\n\n"
            yield DONE

        made = events()
        return StreamingResponse(made, made.aclose)


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    home = StackDirectory.at(tmp_path)
    certificates.ensure(home)
    return home.tls


def app() -> GatewayApp:
    async def admin(*_: object) -> None: ...

    return GatewayApp(Tenants(Keys.of(KEY), MemoryTenantStore()), Echo(), admin, file_bytes_max=1)


def chat(content: str, **more: object) -> bytes:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **more})
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\n"
        f"authorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def exchange(port: int, context: ssl.SSLContext | None, raw: bytes) -> bytes:
    host = None if context is None else "127.0.0.1"
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=host
    )
    writer.write(raw)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


@pytest.mark.parametrize("content", ["hi", "x" * LARGE])
@pytest.mark.parametrize("stream", [False, True])
async def test_requests_are_answered_over_tls(tls: Path, content: str, stream: bool) -> None:
    async with serve_app(app(), **tls_settings(tls / "server.pem", None)) as server:
        answer = await exchange(server.port, trusting(tls / "ca.pem"), chat(content, stream=stream))

    assert answer.startswith(b"HTTP/1.1 200")
    assert content.encode() in answer
    assert (b"[DONE]" in answer) == stream


async def test_a_client_without_tls_or_without_the_authority_gets_no_answer(tls: Path) -> None:
    async with serve_app(app(), **tls_settings(tls / "server.pem", None)) as server:
        plain = await exchange(server.port, None, chat("hi"))
        with pytest.raises(ssl.SSLCertVerificationError):
            await exchange(server.port, trusting(None), chat("hi"))

    assert b"200" not in plain


def test_without_a_certificate_the_gateway_serves_http() -> None:
    assert tls_settings(None, None) == {}


def test_files_that_are_no_certificate_with_its_key_are_refused(tls: Path) -> None:
    for certificate, key, words in (
        (tls / "nowhere.pem", None, "--ssl-certfile .*nowhere.pem: no certificate with its key"),
        (tls / "ca.pem", None, "--ssl-certfile"),
        (tls / "server.pem", tls / "ca.key", "--ssl-keyfile .*ca.key"),
        (None, tls / "ca.key", "needs --ssl-certfile as well"),
    ):
        with pytest.raises(ConfigError, match=words):
            tls_settings(certificate, key)

"""One HTTP/1.1 connection: what it takes, in which order it answers, how long it waits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from app_server import serve_app

from sage_gateway.http.asgi_app import GatewayApp
from sage_gateway.http.gateway_protocol import HEAD_BYTES_MAX, GatewayProtocol
from sage_gateway.openai.schema import BODY_BYTES_MAX
from sage_gateway.requests.request import Request
from sage_gateway.requests.response import DONE, Response, StreamingResponse
from sage_gateway.tenants import Keys, Tenants
from sage_gateway.tenants.memory import MemoryTenantStore

KEY = "sk-sage-test"
CHAT = "/v1/chat/completions"
EVENT = b'data: {"choices":[]}\n\n'


class Echo:
    """Answers with the request's message, after the seconds in its field ``user``."""

    def __init__(self) -> None:
        self.requests = 0

    async def handle(self, request: Request) -> Response | StreamingResponse:
        self.requests += 1
        if request.invalid is not None:
            raise request.invalid
        fields = request.fields()
        if fields["messages"][0]["content"] == "fail":
            raise RuntimeError("a bug")
        await asyncio.sleep(float(fields.get("user", "0")))
        if not fields.get("stream"):
            return Response(200, fields["messages"][0]["content"].encode())
        events = self._events()
        return StreamingResponse(events, events.aclose)

    async def _events(self) -> AsyncIterator[bytes]:
        yield EVENT
        yield DONE


class HastyProtocol(GatewayProtocol):
    """A connection with short time limits."""

    head_s = silence_s = 0.05


async def admin(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"admin"})


class Client:
    """A connection to a gateway whose handler is an :class:`Echo`."""

    def __init__(
        self, echo: Echo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.echo, self.reader, self.writer = echo, reader, writer

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer; its body has a length."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head[9:12]), head, await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """All bytes up to the end of the connection."""
        return await asyncio.wait_for(self.reader.read(), 10)


@contextlib.asynccontextmanager
async def connect(protocol: type[GatewayProtocol] = GatewayProtocol) -> AsyncIterator[Client]:
    echo = Echo()
    tenants = Tenants(Keys.of(KEY), MemoryTenantStore())
    app = GatewayApp(tenants, echo, admin, file_bytes_max=1)
    async with serve_app(app, protocol) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        yield Client(echo, reader, writer)
        writer.close()


def chat(content: str = "hi", *lines: bytes, version: bytes = b"1.1", **more: Any) -> bytes:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **more})
    head = [
        b"POST %b HTTP/%b" % (CHAT.encode(), version),
        b"authorization: Bearer " + KEY.encode(),
        b"content-length: %d" % len(body),
        *lines,
    ]
    return b"\r\n".join([*head, b"", body])


NO_KEY = chat("secret").replace(KEY.encode(), b"wrong")
GET = b"GET /pool HTTP/1.1\r\nauthorization: Bearer %b\r\n\r\n" % KEY.encode()


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with connect() as client:
        requests = [chat("1", user="0.1"), GET, chat("2"), NO_KEY, chat("3"), GET]
        client.send(b"".join(requests))

        answers = [await client.answer() for _ in requests]

    assert [status for status, _, _ in answers] == [200, 200, 200, 401, 200, 200]
    bodies = [body for status, _, body in answers if status == 200]
    assert bodies == [b"1", b"admin", b"2", b"3", b"admin"]


async def test_a_request_is_read_in_any_parts() -> None:
    async with connect() as client:
        for raw in (chat("first"), chat("second")):
            for byte in raw:
                client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await client.answer())[2] == raw.partition(b'"content":"')[2].partition(b'"')[0]


@pytest.mark.parametrize("query", [b"?api-version=1", b"?", b"#x"])
async def test_a_query_does_not_change_the_route(query: bytes) -> None:
    async with connect() as client:
        client.send(chat("hi").replace(CHAT.encode(), CHAT.encode() + query))

        assert (await client.answer())[2] == b"hi"


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    async with connect() as client:
        head, _, body = chat("hi", b"expect: 100-continue").partition(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")

        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(body)
        assert (await client.answer())[2] == b"hi"


async def test_an_offer_of_another_protocol_is_ignored() -> None:
    async with connect() as client:
        offer = b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAM"
        for _ in range(2):
            client.send(chat("hi", *offer))
            assert (await client.answer())[2] == b"hi"
        client.send(GET.replace(b"\r\n\r\n", b"\r\n" + b"\r\n".join(offer) + b"\r\n\r\n"))
        assert (await client.answer())[2] == b"admin"


async def test_a_stream_for_http_1_0_ends_with_the_connection() -> None:
    async with connect() as client:
        client.send(chat("hi", version=b"1.0", stream=True))

        head, _, body = (await client.rest()).partition(b"\r\n\r\n")

    assert b"connection: close" in head
    assert b"chunked" not in head
    assert body == EVENT + DONE


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"no HTTP at all\r\n\r\n", b"invalid_http"),
        (chat().replace(CHAT.encode(), b"http://["), b"invalid_http"),
        (b"CONNECT other.example:443 HTTP/1.1\r\n\r\n", b"method_not_allowed"),
        (chat().replace(b"content-length: ", b"content-length: x"), b"invalid_http"),
    ],
)
async def test_what_is_not_http_is_refused_and_ends_the_connection(raw: bytes, code: bytes) -> None:
    async with connect() as client:
        client.send(raw)
        found = await client.rest()

    assert found[9:12] in (b"400", b"405")
    assert code in found
    assert client.echo.requests == 0


CHUNKED = chat().partition(b"content-length")[0] + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"f" * 17 + b"\r\n", b"2\r\n{}!"])
@pytest.mark.parametrize("apart", [False, True])
async def test_a_body_that_is_not_chunks_is_a_400(chunk: bytes, apart: bool) -> None:
    async with connect() as client:
        client.send(CHUNKED)
        if apart:
            await asyncio.sleep(0.05)
        client.send(chunk)
        found = await client.rest()

    assert found.startswith(b"HTTP/1.1 400 ")
    assert b"invalid_http" in found
    assert client.echo.requests == 0


async def test_a_request_before_what_is_not_http_is_answered() -> None:
    async with connect() as client:
        client.send(chat("first", user="0.1") + b"no HTTP\r\n\r\n" + chat("second"))
        client.send(chat("third"))
        found = await client.rest()

    assert found.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in found
    assert found.endswith(b"first")
    assert client.echo.requests == 1


async def test_a_pipelined_body_that_is_not_chunks_is_a_400_after_the_first_answer() -> None:
    async with connect() as client:
        client.send(chat("first", user="0.1") + CHUNKED + b"zz\r\n")
        found = await client.rest()

    assert found.startswith(b"HTTP/1.1 200 ")
    assert b"first" in found
    assert b"HTTP/1.1 400 " in found


LONG = b"x: " + b"y" * HEAD_BYTES_MAX + b"\r\n"
MANY = b"x: y\r\n" * (HEAD_BYTES_MAX // 6 + 1)


@pytest.mark.parametrize("lines", [LONG, MANY], ids=["one header", "many headers"])
@pytest.mark.parametrize("path", [CHAT.encode(), b"/pool"])
@pytest.mark.parametrize("complete", [True, False])
async def test_a_large_head_is_a_431(lines: bytes, path: bytes, complete: bool) -> None:
    async with connect() as client:
        client.send(b"POST %b HTTP/1.1\r\n%b" % (path, lines + b"\r\n" * complete))
        found = await client.rest()

    assert found.startswith(b"HTTP/1.1 431 ")
    assert b"head_too_large" in found


async def test_a_body_may_be_larger_than_a_head() -> None:
    async with connect() as client:
        content = "x" * (2 * HEAD_BYTES_MAX)
        client.send(chat(content))

        assert (await client.answer())[2] == content.encode()


async def test_a_body_that_is_too_large_is_a_413() -> None:
    async with connect() as client:
        client.send(chat("x" * BODY_BYTES_MAX))
        status, head, _ = await client.answer()
        rest = await client.rest()

    assert status == 413
    assert b"connection: close" in head
    assert (rest, client.echo.requests) == (b"", 0)


@pytest.mark.parametrize("sent", [b"P", b"POST /v1", b"POST / HTTP/1.1\r\nx: y\r\n"])
async def test_a_head_that_does_not_come_is_a_408(sent: bytes) -> None:
    async with connect(HastyProtocol) as client:
        client.send(sent)

        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_does_not_come_is_a_408() -> None:
    async with connect(HastyProtocol) as client:
        client.send(chat("hi")[:-1])

        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        assert client.echo.requests == 0


async def test_the_time_limits_do_not_apply_to_the_answer() -> None:
    async with connect(HastyProtocol) as client:
        client.send(chat("first", user="1.5") + b"POST /v1")
        assert (await client.answer())[2] == b"first"
        client.send(chat("second").removeprefix(b"POST /v1"))

        assert (await client.answer())[2] == b"second"


async def test_a_bug_of_a_handler_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async with connect() as client:
        client.send(chat("fail"))
        status, _, body = await client.answer()

    assert status == 500
    assert b"internal_error" in body
    assert "a bug" in caplog.text


async def test_a_number_beyond_all_bounds_is_answered() -> None:
    async with connect() as client:
        client.send(chat("hi", n=1e300))

        assert (await client.answer())[0] == 400

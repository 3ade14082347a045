"""What an HTTP/1.1 connection refuses: no HTTP, and what is too large or does not come."""

import asyncio

import pytest
from echo_connection import CHAT, chat, connect

from sage_gateway.http.gateway_protocol import HEAD_BYTES_MAX, GatewayProtocol
from sage_gateway.openai.schema import BODY_BYTES_MAX


class HastyProtocol(GatewayProtocol):
    """A connection with short time limits."""

    head_s = silence_s = 0.05


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

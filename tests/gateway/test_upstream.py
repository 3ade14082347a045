"""The client of the data plane against servers with scripted responses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from sage_gateway.forwarding.engine_client import Client
from sage_gateway.forwarding.engine_connection import BrokenError

LIMIT = aiohttp.ClientTimeout(total=5.0, sock_connect=2.0)
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Server:
    """Answers each request with the next of ``answers``; ``closes`` the connection after them."""

    def __init__(self, *answers: bytes, pause_s: float = 0.0, closes: bool = False) -> None:
        self.answers = list(answers)
        self.closes = closes
        self.pause_s = pause_s
        self.connections = self.aborted = 0
        self.requests: list[bytes] = []
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers and (head := await reader.readuntil(b"\r\n\r\n")):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                for piece in self.answers.pop(0).split(b"|"):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(self.pause_s)
            if not self.closes:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.aborted += 1
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    *answers: bytes, pause_s: float = 0.0, closes: bool = False
) -> AsyncIterator[tuple[Server, Client]]:
    server = Server(*answers, pause_s=pause_s, closes=closes)
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/x?a=b"
    client = Client()
    try:
        yield server, client
    finally:
        await client.close()
        listening.close()
        await asyncio.sleep(0.01)


async def post(client: Client, url: str, total_s: float = 5.0) -> tuple[int, bytes]:
    headers = {"content-type": "application/json"}
    limit = aiohttp.ClientTimeout(total=total_s, sock_connect=2.0)
    async with client.post(url, data=b'{"a": 1}', headers=headers, timeout=limit) as answer:
        return answer.status, await answer.read()


async def test_a_request_is_sent_unchanged_and_the_answer_returned() -> None:
    async with serving(OK) as (server, client):
        found = await post(client, server.url)

    assert found == (200, b"{}")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x?a=b HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"content-type: application/json" in head
    assert body == b'{"a": 1}'


async def test_one_connection_serves_one_request_after_the_other() -> None:
    async with serving(OK, OK, OK) as (server, client):
        found = [await post(client, server.url) for _ in range(3)]

    assert found == [(200, b"{}")] * 3
    assert server.connections == 1


async def test_two_at_a_time_take_two_connections() -> None:
    async with serving(OK, OK, pause_s=0.05) as (server, client):
        found = await asyncio.gather(post(client, server.url), post(client, server.url))

    assert [status for status, _ in found] == [200, 200]
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (
            CHUNKED + b"|3\r\nabc\r\n|2\r\nde\r\n|0\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-le|ngth: 4\r\n\r\nab|cd", b"abcd"),
        (b"HTTP/1.1 100 Continue\r\n\r\n|HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", b"x"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    ],
)
async def test_every_framing_is_read_from_pieces_of_any_size(answer: bytes, body: bytes) -> None:
    async with serving(answer, OK, pause_s=0.01) as (server, client):
        first, second = await post(client, server.url), await post(client, server.url)

    assert first == (200, body)
    assert second == (200, b"{}")
    assert server.connections == 1


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n\r\nabc|def", closes=True) as (server, client):
        assert await post(client, server.url) == (200, b"abcdef")


async def test_an_error_status_is_an_answer() -> None:
    answer = b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"
    async with serving(answer) as (server, client):
        assert await post(client, server.url) == (503, b"busy")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        CHUNKED + b"3\r\nabc\r\n",
        b"SSH-2.0 what is this\r\n\r\n",
    ],
)
async def test_an_incomplete_answer_is_a_broken_connection(answer: bytes) -> None:
    async with serving(answer, closes=True) as (server, client):
        with pytest.raises(BrokenError):
            await post(client, server.url)


async def test_a_refused_connection_is_a_broken_connection() -> None:
    with pytest.raises(BrokenError, match="no connection to"):
        await post(Client(), "http://127.0.0.1:1/")


async def test_a_slow_answer_is_a_timeout_and_its_request_is_aborted() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n|half") as (server, client):
        with pytest.raises(TimeoutError):
            await post(client, server.url, total_s=0.05)
        assert not any(connection.open for connection in client._all)


async def test_closing_an_answer_early_aborts_the_request() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n|half", OK) as (
        server,
        client,
    ):
        async with client.post(server.url, data=b"", headers={}, timeout=LIMIT) as answer:
            assert await answer.content.readany() == b"half"
        found = await post(client, server.url)

    assert found == (200, b"{}")
    assert server.connections == 2


async def test_a_connection_closed_by_its_engine_is_not_reused() -> None:
    async with serving(OK, closes=True) as (server, client):
        await post(client, server.url)
        await asyncio.sleep(0.05)
        server.answers = [OK]

        assert await post(client, server.url) == (200, b"{}")
    assert server.connections == 2


async def test_bytes_after_an_answer_are_not_read_as_the_next_one() -> None:
    stray = b"HTTP/1.1 500 No\r\ncontent-length: 5\r\n\r\nstray"
    async with serving(OK + stray, OK) as (server, client):
        first, second = await post(client, server.url), await post(client, server.url)

    assert first == second == (200, b"{}")
    assert server.connections == 2


async def test_an_answer_with_connection_close_is_the_last_of_its_connection() -> None:
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    async with serving(closing, OK) as (server, client):
        await post(client, server.url)
        await post(client, server.url)

    assert server.connections == 2


async def test_a_slow_reader_gets_all_of_a_large_answer_under_backpressure() -> None:
    size = 8 << 20
    large = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size
    async with serving(large) as (server, client):
        count = 0
        async with client.post(server.url, data=b"", headers={}, timeout=LIMIT) as answer:
            await asyncio.sleep(0.1)
            assert answer._buffered_bytes < size
            while piece := await answer.content.readany():
                count += len(piece)

    assert count == size


async def test_a_header_with_a_line_break_is_refused() -> None:
    client = Client()
    for value in ("a\r\nx-admin: yes", "a\nb", "a\rb"):
        with pytest.raises(ValueError, match="line break"):
            client.post("http://127.0.0.1:1/", data=b"", headers={"x": value}, timeout=LIMIT)

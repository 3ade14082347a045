"""Errors of the HTTP pool, and which endpoints receive its key."""

import asyncio
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict

from sage_connectors import HttpPool, http_pool
from sage_connectors import http as connector
from sage_flink.common import PoolError, PoolTimeout
from sage_flink.common.errors import PoolAway


async def echo_headers(request: web.Request) -> web.Response:
    return web.json_response(dict(request.headers))


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(5)
    return web.Response()


async def break_connection(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    await answer.write(b"half")
    assert request.transport is not None
    request.transport.abort()
    return answer


async def large(request: web.Request) -> web.Response:
    return web.Response(body=b"x" * 2000)


async def busy(request: web.Request) -> web.Response:
    page = {"error": {"message": "queue is full"}}
    return web.json_response(page, status=429, headers={"Retry-After": "1.5"})


@pytest.fixture
async def url() -> object:
    app = web.Application()
    for step in (echo_headers, slow, break_connection, large, busy):
        app.router.add_post(f"/{step.__name__}", step)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


async def test_key_and_headers_are_sent(url: str) -> None:
    async with http_pool(url, "secret") as pool:
        _, body, _ = await pool.post("/echo_headers", b"{}", {"X-Request-Id": "r1"})

    headers = CIMultiDict(json.loads(body))
    assert headers["Authorization"] == "Bearer secret"
    assert (headers["X-Request-Id"], headers["Content-Type"]) == ("r1", "application/json")


async def test_a_foreign_endpoint_does_not_get_the_gateways_key(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_GATEWAY_KEY", "the gateway's")
    async with http_pool(url) as pool:
        _, foreign, _ = await pool.post("/echo_headers", b"{}", {})
    monkeypatch.setenv("SAGE_GATEWAY_URL", url)
    async with http_pool() as pool:
        _, own, _ = await pool.post("/echo_headers", b"{}", {})

    assert "Authorization" not in json.loads(foreign)
    assert json.loads(own)["Authorization"] == "Bearer the gateway's"


async def test_no_answer_in_time_is_a_timeout(url: str) -> None:
    async with http_pool(url, timeout_s=0.05) as pool:
        with pytest.raises(PoolTimeout, match=r"POST /slow: no answer within 0\.05 s"):
            await pool.post("/slow", b"{}", {})
        with pytest.raises(PoolTimeout):
            [c async for c in pool.stream("/slow", b"{}", {})]


async def test_a_refused_and_a_broken_connection_are_errors_without_status(url: str) -> None:
    async with http_pool("http://127.0.0.1:1") as away, http_pool(url) as pool:
        with pytest.raises(PoolError, match="POST /x") as caught:
            await away.post("/x", b"{}", {})
        with pytest.raises(PoolError):
            await pool.post("/break_connection", b"{}", {})
        with pytest.raises(PoolError):
            [c async for c in pool.stream("/break_connection", b"{}", {})]

    assert caught.value.status == 0


async def test_a_streams_error_keeps_status_and_message(url: str) -> None:
    async with http_pool(url) as pool:
        with pytest.raises(PoolError, match="queue is full") as caught:
            [c async for c in pool.stream("/busy", b"{}", {})]

    assert caught.value.status == 429


async def test_an_answer_above_the_limit_is_an_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "RESPONSE_BYTES_MAX", 1000)
    async with http_pool(url) as pool:
        with pytest.raises(PoolError, match="above 1000 bytes"):
            await pool.post("/large", b"{}", {})


async def test_many_requests_are_in_flight_concurrently(url: str) -> None:
    async with http_pool(url) as pool:
        answers = await asyncio.gather(*(pool.post("/echo_headers", b"{}", {}) for _ in range(300)))

    assert {reply.status for reply in answers} == {200}


async def test_a_closed_pool_opens_again(url: str) -> None:
    pool = HttpPool(url, "")
    for _ in range(2):
        assert (await pool.post("/echo_headers", b"{}", {}))[0] == 200
        await pool.aclose()
    await pool.aclose()


async def test_an_unreachable_endpoint_is_skipped_for_a_while(url: str) -> None:
    failed = 0
    async with http_pool(f"http://127.0.0.1:1, {url}") as pool:
        for _ in range(10):
            try:
                assert (await pool.post("/echo_headers", b"{}", {})).status == 200
            except PoolAway:
                failed += 1

    assert failed <= 2


async def test_retry_after_of_a_busy_pool_is_part_of_the_error(url: str) -> None:
    async with http_pool(url) as pool:
        reply = await pool.post("/busy", b"{}", {})

    assert (reply.status, reply.retry_after_s) == (429, 1.5)

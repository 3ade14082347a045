"""One HTTP/1.1 connection: what it takes, and in which order it answers."""

import asyncio

import pytest
from echo_connection import CHAT, EVENT, KEY, chat, connect

from sage_gateway.requests.response import DONE

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

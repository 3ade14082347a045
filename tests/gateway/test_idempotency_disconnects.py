"""Clients that disconnect: their calls are detached, and joined, recorded or aborted."""

import asyncio
import time
from typing import Any

import httpx
from repeating_client import CHAT, RepeatingClient, chat, ledger_header, new_id_headers

KEY = "sk-sage-test"


def test_a_client_that_disconnects_and_repeats_joins_the_detached_call(
    caller: RepeatingClient,
) -> None:
    id_headers = new_id_headers()

    caller.disconnect("hold detached", id_headers)
    caller.until_listeners(0)
    future = caller.begin("hold detached", id_headers)
    caller.until_listeners(1)
    caller.gateway.release("detached")
    again = future.result()

    assert ledger_header(again) == "joined"
    assert (caller.engine_requests(), caller.abort_count()) == (1, 0)


def test_a_client_that_disconnects_and_repeats_later_gets_the_recorded_answer(
    caller: RepeatingClient,
) -> None:
    id_headers = new_id_headers()
    kept = caller.metric("sage_gateway_ledger_records_total")

    caller.disconnect("sleep 0.6", id_headers)
    caller.gateway.until(lambda: caller.metric("sage_gateway_ledger_records_total") > kept)
    again = caller.ask("sleep 0.6", id_headers)

    assert ledger_header(again) == "hit"
    assert again.json()["choices"][0]["message"]["content"] == "sleep"
    assert (caller.engine_requests(), caller.abort_count()) == (1, 0)


def test_a_killed_and_replayed_job_generates_no_answer_twice(start: Any, fake: Any) -> None:
    count = 60

    async def all_of(gateway: Any, ids: list[dict[str, str]], seconds: float) -> list[Any]:
        limits = httpx.Limits(max_connections=None)
        key = {"authorization": f"Bearer {KEY}"}
        timeout = httpx.Timeout(30.0, read=seconds)
        async with httpx.AsyncClient(
            limits=limits, timeout=timeout, headers=key, verify=False
        ) as client:
            url, body = gateway.url + CHAT, chat("sleep 4")
            calls = (client.post(url, content=body, headers=id_headers) for id_headers in ids)
            return await asyncio.gather(*calls, return_exceptions=True)

    with start({"talk": fake()}) as gateway:
        caller, ids = RepeatingClient(gateway), [new_id_headers() for _ in range(count)]
        cut_off = asyncio.run(all_of(gateway, ids, 2.0))
        replayed = asyncio.run(all_of(gateway, ids, 30.0))

        assert {type(answer) for answer in cut_off} == {httpx.ReadTimeout}
        assert {answer.status_code for answer in replayed} == {200}
        assert {ledger_header(answer) for answer in replayed} <= {"joined", "hit"}
        assert (caller.engine_requests(), caller.abort_count()) == (count, 0)


def test_a_client_that_returns_to_its_stream_gets_it_from_the_start(start: Any, fake: Any):
    with start({"talk": fake()}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()
        body = chat("slow", stream=True)
        with gateway.client.stream("POST", CHAT, content=body, headers=id_headers) as first:
            started = next(first.iter_lines())
        time.sleep(0.3)
        with gateway.client.stream("POST", CHAT, content=body, headers=id_headers) as again:
            assert next(again.iter_lines()) == started

        assert again.headers["x-sage-ledger"] == "joined"
        assert (caller.engine_requests(), caller.abort_count()) == (1, 0)


def test_a_call_without_an_id_is_aborted_with_its_client(caller: RepeatingClient) -> None:
    caller.disconnect("sleep 30", {"x-request-id": "r-1"})

    caller.gateway.until(lambda: caller.abort_count() == 1, 10.0)


def test_a_detached_call_is_aborted_after_its_grace_time(start: Any, fake: Any) -> None:
    with start({"talk": fake()}, pool={"ledger": {"grace_s": 0.5}}) as gateway:
        caller = RepeatingClient(gateway)

        caller.disconnect("sleep 30", new_id_headers())
        gateway.until(lambda: caller.abort_count() == 1, 15.0)

        assert caller.metric("sage_gateway_ledger_detached_aborted_total") == 1
        assert caller.metric("sage_gateway_ledger_detached ") == 0


def test_detached_calls_beyond_the_limit_are_aborted(start: Any, fake: Any) -> None:
    with start({"talk": fake()}, pool={"ledger": {"orphans_max": 1}}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()

        caller.disconnect("hold first", id_headers)
        caller.until_listeners(0)
        caller.disconnect("sleep 30", new_id_headers())
        gateway.until(lambda: caller.abort_count() == 1, 15.0)

        assert caller.metric("sage_gateway_ledger_detached ") == 1
        gateway.release("first")
        assert ledger_header(caller.ask("hold first", id_headers)) in ("joined", "hit")
        assert caller.engine_requests() == 2

"""Answers that end early: charged if the client left, not if the gateway stops."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import orjson
from engineless_gateway import CHAT, EVENT, KEY, Observer, Outcomes


@contextlib.asynccontextmanager
async def answer_in_progress(
    outcomes: Outcomes, *, stream: bool
) -> AsyncIterator[asyncio.Task[None]]:
    """The task that answers, of a stream one event; later the client leaves."""
    outcomes.models.hangs, outcomes.models.observer = True, Observer()
    message = {"role": "user", "content": "x"}
    body = orjson.dumps({"model": "talk", "stream": stream, "messages": [message]})
    lines = [
        f"POST {CHAT} HTTP/1.1",
        f"authorization: Bearer {KEY}",
        f"content-length: {len(body)}",
    ]
    head = "\r\n".join(lines) + "\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", outcomes.server.port)
    writer.write(head.encode() + body)
    if stream:
        await reader.readuntil(EVENT)
    while not outcomes.models.requests:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    [task] = outcomes.server.tasks
    yield task
    writer.close()
    await asyncio.wait([task])


async def test_a_stream_that_the_stopping_gateway_cuts_is_not_charged(outcomes: Outcomes) -> None:
    async with answer_in_progress(outcomes, stream=True) as task:
        task.cancel()
        await asyncio.wait([task])

    assert task.cancelled()
    assert outcomes.models.observer is not None
    assert outcomes.models.observer.ends == [(False, True)]
    assert await spent_tokens(outcomes) == 0
    assert outcomes.counts() == {("talk", "503"): 1}


async def test_a_stream_that_its_client_leaves_is_charged(outcomes: Outcomes) -> None:
    async with answer_in_progress(outcomes, stream=True) as task:
        pass

    assert not task.cancelled()
    assert outcomes.models.observer is not None
    assert outcomes.models.observer.ends == [(False, False)]
    assert await spent_tokens(outcomes) > 0
    assert outcomes.counts() == {("talk", "499"): 1}


async def test_a_whole_answer_that_the_stopping_gateway_cuts_is_not_charged(
    outcomes: Outcomes,
) -> None:
    async with answer_in_progress(outcomes, stream=False) as task:
        task.cancel()
        await asyncio.wait([task])

    assert await spent_tokens(outcomes) == 0


async def test_a_whole_answer_that_its_client_leaves_is_charged_as_far_as_it_was(
    outcomes: Outcomes,
) -> None:
    async with answer_in_progress(outcomes, stream=False):
        pass

    assert await spent_tokens(outcomes) == 5
    assert outcomes.counts() == {("talk", "499"): 1}


async def spent_tokens(outcomes: Outcomes) -> int:
    """The tokens charged to all keys."""
    await outcomes.tenants.flush()
    return sum(charge.tokens for charge in await outcomes.store.usage(0, 99_999_999))

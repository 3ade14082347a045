"""The contract of every idempotency store."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sage_gateway.idempotency.store_protocol import (
    ROW_BYTES,
    IdempotencyStore,
    RecordedAnswer,
    RunningCall,
)

DIGEST = b"d" * 16


def key() -> bytes:
    return uuid.uuid4().bytes


def answer(body: bytes = b'{"choices": [1]}', *, stream: bool = False) -> RecordedAnswer:
    return RecordedAnswer(DIGEST, stream, body)


async def claim_and_record(store: IdempotencyStore, name: bytes, what: RecordedAnswer) -> None:
    assert await store.claim(name, what.digest) is None
    await store.record(name, what)


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if await holds():
            return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", [b"", b"{}", bytes(range(256)), b"x" * 100_000])
async def test_a_recorded_answer_is_found_byte_for_byte(
    open_store: Any, body: bytes, stream: bool
) -> None:
    async with open_store() as store:
        name = key()
        await claim_and_record(store, name, answer(body, stream=stream))

        assert await store.claim(name, DIGEST) == answer(body, stream=stream)


async def test_a_claim_is_seen_by_the_next_until_it_is_released(open_store: Any) -> None:
    async with open_store() as store:
        name = key()

        assert await store.claim(name, DIGEST) is None
        assert await store.claim(name, b"e" * 16) == RunningCall(DIGEST)
        await store.release(name)
        assert await store.claim(name, b"e" * 16) is None
        assert await store.claim(key(), DIGEST) is None


async def test_releasing_twice_or_without_a_claim_has_no_effect(open_store: Any) -> None:
    async with open_store() as store:
        name = key()
        await claim_and_record(store, name, answer())

        await store.release(name)
        await store.release(key())

        assert await store.claim(name, DIGEST) == answer()


async def test_the_first_answer_of_a_key_stays(open_store: Any) -> None:
    async with open_store() as store:
        name = key()
        await claim_and_record(store, name, answer(b"first"))
        await store.record(name, answer(b"second"))

        assert await store.claim(name, DIGEST) == answer(b"first")
        assert store.bytes_held == len(b"first") + ROW_BYTES


async def test_concurrent_answers_are_all_recorded(open_store: Any) -> None:
    async with open_store() as store:
        names = [key() for _ in range(300)]
        await asyncio.gather(*(claim_and_record(store, n, answer(n)) for n in names))

        assert [await store.claim(n, DIGEST) for n in names] == [answer(n) for n in names]

        async def all_recorded() -> bool:
            return store.bytes_held == 300 * (16 + ROW_BYTES)

        assert await eventually(all_recorded)


async def test_the_oldest_answer_is_evicted_beyond_the_size_limit(open_store: Any) -> None:
    size = 1000 - ROW_BYTES
    async with open_store(bytes_max=10_000) as store:
        names = [key() for _ in range(13)]
        for name in names:
            await claim_and_record(store, name, answer(b"x" * size))

        async def fits() -> bool:
            return store.bytes_held == 10_000

        assert await eventually(fits)
        assert store.evictions == 3
        found = [isinstance(await store.claim(n, DIGEST), RecordedAnswer) for n in names]
        assert found == [False] * 3 + [True] * 10


async def test_an_expired_answer_is_not_found_and_can_be_recorded_again(open_store: Any) -> None:
    async with open_store(ttl_s=0.3) as store:
        name = key()
        await claim_and_record(store, name, answer(b"old"))

        async def is_expired() -> bool:
            return await store.claim(name, DIGEST) is None

        assert await eventually(is_expired)
        await store.record(name, answer(b"new"))
        assert await store.claim(name, DIGEST) == answer(b"new")


async def test_answers_survive_a_restart_but_claims_do_not(
    open_store: Any, request: pytest.FixtureRequest
) -> None:
    done, claimed = key(), key()
    async with open_store() as store:
        await claim_and_record(store, done, answer())
        await store.claim(claimed, DIGEST)

    async with open_store() as store:
        durable = "memory" not in request.node.name
        assert await store.claim(done, DIGEST) == (answer() if durable else None)
        assert await store.claim(claimed, DIGEST) is None
        assert store.bytes_held == (16 + ROW_BYTES if durable else 0)

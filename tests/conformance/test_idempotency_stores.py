"""What every store of the ledger promises."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sage_gateway.idempotency.store_protocol import ROW_BYTES, Recorded, Running, Store

DIGEST = b"d" * 16


def key() -> bytes:
    return uuid.uuid4().bytes


def answer(body: bytes = b'{"choices": [1]}', *, stream: bool = False) -> Recorded:
    return Recorded(DIGEST, stream, body)


async def kept(store: Store, name: bytes, what: Recorded) -> None:
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
async def test_what_was_recorded_is_found_byte_for_byte(
    ledger: Any, body: bytes, stream: bool
) -> None:
    async with ledger() as store:
        name = key()
        await kept(store, name, answer(body, stream=stream))

        assert await store.claim(name, DIGEST) == answer(body, stream=stream)


async def test_a_claim_is_seen_by_the_next_until_it_is_released(ledger: Any) -> None:
    async with ledger() as store:
        name = key()

        assert await store.claim(name, DIGEST) is None
        assert await store.claim(name, b"e" * 16) == Running(DIGEST)
        await store.release(name)
        assert await store.claim(name, b"e" * 16) is None
        assert await store.claim(key(), DIGEST) is None


async def test_what_is_released_twice_or_was_never_claimed_does_no_harm(ledger: Any) -> None:
    async with ledger() as store:
        name = key()
        await kept(store, name, answer())

        await store.release(name)
        await store.release(key())

        assert await store.claim(name, DIGEST) == answer()


async def test_the_first_answer_of_a_key_stays(ledger: Any) -> None:
    async with ledger() as store:
        name = key()
        await kept(store, name, answer(b"first"))
        await store.record(name, answer(b"second"))

        assert await store.claim(name, DIGEST) == answer(b"first")
        assert store.bytes_held == len(b"first") + ROW_BYTES


async def test_many_at_once_are_all_kept(ledger: Any) -> None:
    async with ledger() as store:
        names = [key() for _ in range(300)]
        await asyncio.gather(*(kept(store, n, answer(n)) for n in names))

        assert [await store.claim(n, DIGEST) for n in names] == [answer(n) for n in names]

        async def counted() -> bool:
            return store.bytes_held == 300 * (16 + ROW_BYTES)

        assert await eventually(counted)


async def test_the_oldest_goes_when_there_are_too_many_bytes(ledger: Any) -> None:
    size = 1000 - ROW_BYTES
    async with ledger(bytes_max=10_000) as store:
        names = [key() for _ in range(13)]
        for name in names:
            await kept(store, name, answer(b"x" * size))

        async def fits() -> bool:
            return store.bytes_held == 10_000

        assert await eventually(fits)
        assert store.evicted == 3
        found = [isinstance(await store.claim(n, DIGEST), Recorded) for n in names]
        assert found == [False] * 3 + [True] * 10


async def test_what_is_too_old_is_not_found_and_may_be_recorded_anew(ledger: Any) -> None:
    async with ledger(ttl_s=0.3) as store:
        name = key()
        await kept(store, name, answer(b"old"))

        async def gone() -> bool:
            return await store.claim(name, DIGEST) is None

        assert await eventually(gone)
        await store.record(name, answer(b"new"))
        assert await store.claim(name, DIGEST) == answer(b"new")


async def test_answers_outlive_the_store_but_claims_do_not(
    ledger: Any, request: pytest.FixtureRequest
) -> None:
    done, claimed = key(), key()
    async with ledger() as store:
        await kept(store, done, answer())
        await store.claim(claimed, DIGEST)

    async with ledger() as store:
        durable = "memory" not in request.node.name
        assert await store.claim(done, DIGEST) == (answer() if durable else None)
        assert await store.claim(claimed, DIGEST) is None
        assert store.bytes_held == (16 + ROW_BYTES if durable else 0)

"""The contract of every store of cached answers."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis_server import redis_server

from sage_flink.common import StoreUnavailable
from sage_gateway.cache.memory import MemoryCacheStore
from sage_gateway.cache.redis import RedisCacheStore
from sage_gateway.cache.sqlite import SqliteCacheStore
from sage_gateway.cache.store_protocol import ROW_BYTES, CacheStore

MakeStore = Callable[[int], CacheStore]


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.service)])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeStore]:
    """A function that makes a store of at most ``bytes_max`` bytes."""
    if request.param == "memory":
        yield lambda bytes_max: MemoryCacheStore(bytes_max=bytes_max)
        return
    stores: list[CacheStore] = []

    def sqlite_store(bytes_max: int) -> CacheStore:
        stores.append(SqliteCacheStore(tmp_path / "cache.sqlite", bytes_max=bytes_max))
        return stores[-1]

    def redis_store(bytes_max: int) -> CacheStore:
        stores.append(RedisCacheStore(url, bytes_max=bytes_max))
        return stores[-1]

    with contextlib.ExitStack() as opened:
        if request.param == "redis":
            url = opened.enter_context(redis_server(tmp_path))
        yield redis_store if request.param == "redis" else sqlite_store
        for store in stores:
            await store.close()


def key() -> bytes:
    return uuid.uuid4().bytes


async def get(store: CacheStore, name: bytes) -> bytes | None:
    [found] = await store.get([name])
    return found


@pytest.mark.parametrize("answer", [b"", b"{}", bytes(range(256)), b"x" * 100_000])
async def test_a_stored_answer_is_found_byte_for_byte(make_store: MakeStore, answer: bytes) -> None:
    store, name = make_store(1 << 20), key()

    assert await get(store, name) is None
    await store.put({name: answer}, 60)

    assert await get(store, name) == answer
    assert await get(store, key()) is None


async def test_answers_are_found_in_the_order_of_their_keys(make_store: MakeStore) -> None:
    store, names = make_store(1 << 20), [key() for _ in range(1_200)]
    await store.put({name: name * 2 for name in names[::2]}, 60)

    found = await store.get([*reversed(names), names[0]])

    wanted = {name: name * 2 for name in names[::2]}
    assert found == [wanted.get(name) for name in (*reversed(names), names[0])]
    assert await store.get([]) == []
    await store.put({}, 60)


async def test_a_later_answer_replaces_an_earlier_one(make_store: MakeStore) -> None:
    store, name = make_store(1 << 20), key()
    await store.put({name: b"first"}, 60)
    await store.put({name: b"second"}, 60)

    assert await get(store, name) == b"second"


async def test_an_answer_expires_after_its_ttl(make_store: MakeStore) -> None:
    store, brief, long = make_store(1 << 20), key(), key()
    await store.put({brief: b"x"}, 1)
    await store.put({long: b"y"}, 60)
    await asyncio.sleep(1.1)

    assert await get(store, brief) is None
    assert await get(store, long) == b"y"


async def test_bytes_are_bounded_and_the_newest_answers_stay(make_store: MakeStore) -> None:
    size, room = 1000, 10
    store = make_store(room * (size + ROW_BYTES))
    names = [key() for _ in range(30)]
    for i, name in enumerate(names):
        await store.put({name: b"x" * size}, 60 + i)

    found = [await get(store, name) is not None for name in names]

    assert found == [False] * 20 + [True] * 10


async def test_an_answer_stored_twice_takes_the_space_of_one(
    make_store: MakeStore,
) -> None:
    store = make_store(10 * (1000 + ROW_BYTES))
    names = [key() for _ in range(10)]
    for _ in range(5):
        for name in names:
            await store.put({name: b"x" * 1000}, 60)

    assert all([await get(store, name) for name in names])


async def test_an_answer_larger_than_the_store_is_not_stored(make_store: MakeStore) -> None:
    store, name = make_store(1000), key()
    await store.put({name: b"x" * 2000}, 60)

    assert await get(store, name) is None


async def test_a_cleared_store_is_empty_and_usable(make_store: MakeStore) -> None:
    store = make_store(10**6)
    names = [key() for _ in range(1200)]
    await store.put(dict.fromkeys(names, b"answer"), 100)

    await store.clear()

    assert set(await store.get(names)) == {None}
    await store.put({names[0]: b"new"}, 100)
    assert await get(store, names[0]) == b"new"


async def test_cleared_answers_leave_the_file_and_other_gateways(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    first, second = (SqliteCacheStore(path, bytes_max=10**7) for _ in range(2))
    name, answer = key(), b"known text " * 1000
    await first.put({name: answer}, 100)
    assert await second.get([name]) == [answer]

    await second.clear()

    assert await first.get([name]) == [None]
    assert b"known text" not in bytes_of(tmp_path)
    await first.close()
    await second.close()


def bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_the_error_of_an_unreachable_redis_does_not_contain_its_password() -> None:
    store = RedisCacheStore("redis://:secret@127.0.0.1:1/0", bytes_max=1000)
    for ask in (store.get([key()]), store.put({key(): b"x"}, 1)):
        with pytest.raises(StoreUnavailable) as caught:
            await ask
        assert "secret" not in str(caught.value)
    await store.close()

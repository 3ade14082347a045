"""The file of the embedding cache: restarts, damage, a kill, gateways that share it."""

import asyncio
import logging
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from cached_engine import Cache, vector
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_gateway.cache.sqlite import SqliteCacheStore


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), max_size=12),
    st.booleans(),
)
def test_any_requests_get_the_vectors_of_their_texts_and_each_text_is_embedded_once(
    requests: list[list[str]], restarts: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_ask_all(Path(folder) / "vectors.sqlite", requests, restarts))


async def _ask_all(path: Path, requests: list[list[str]], restarts: bool) -> None:
    embedded: Counter[str] = Counter()
    cache = Cache(SqliteCacheStore(path, bytes_max=1 << 20))
    for texts in requests:
        _, found, _ = await cache.ask(texts)
        assert found == [vector(text) for text in texts]
        if restarts:
            await cache.handler.close()
            embedded += cache.engine.texts
            cache = Cache(SqliteCacheStore(path, bytes_max=1 << 20))
    embedded += cache.engine.texts
    await cache.handler.close()
    assert embedded == Counter({text for texts in requests for text in texts})


@pytest.mark.parametrize("damage", ["garbage", "other layout", "folder"])
async def test_a_damaged_file_costs_its_vectors_and_nothing_else(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "vectors.sqlite"
    cache = Cache(SqliteCacheStore(path, bytes_max=1 << 20))
    await cache.ask(["a"])
    await cache.handler.close()
    match damage:
        case "garbage":
            path.write_bytes(b"garbage" * 1000)
        case "other layout":
            await _change_layout(path)
        case "folder":
            path.unlink()
            path.mkdir()

    caplog.set_level(logging.WARNING)
    cache = Cache(SqliteCacheStore(path, bytes_max=1 << 20))
    assert (await cache.ask(["a"]))[1] == [vector("a")]
    await cache.handler.close()

    assert cache.engine.texts["a"] == 1
    assert bool(caplog.messages) == (damage != "other layout")


async def _change_layout(path: Path) -> None:
    import sqlite3

    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from sage_gateway.cache.sqlite import SqliteCacheStore

async def write(path):
    store = SqliteCacheStore(path, bytes_max=1 << 30)
    for n in range(1_000_000):
        await store.put({b"%d/%d" % (n, i): b"vector" * 256 for i in range(8)}, 3600)
        print(n, flush=True)

asyncio.run(write(Path(sys.argv[1])))
"""


def test_vectors_that_were_stored_survive_a_kill_of_the_gateway(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    line = [sys.executable, "-c", WRITER, path]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(50)]
        writer.kill()
        acknowledged += map(int, writer.stdout.read().splitlines())

    found = asyncio.run(_get(path, [b"%d/%d" % (n, i) for n in acknowledged for i in range(8)]))
    assert len(found) >= 400
    assert set(found) == {b"vector" * 256}


async def _get(path: Path, keys: list[bytes]) -> list[bytes | None]:
    store = SqliteCacheStore(path, bytes_max=1 << 30)
    found = await store.get(keys)
    await store.close()
    return found


async def test_gateways_that_start_together_open_one_new_file(tmp_path: Path) -> None:
    for n in range(20):
        path = tmp_path / f"{n}.sqlite"
        stores = [SqliteCacheStore(path, bytes_max=1 << 20) for _ in range(3)]
        await asyncio.gather(*(store.put({b"key": b"x"}, 60) for store in stores))
        assert await stores[0].get([b"key"]) == [b"x"]
        await asyncio.gather(*(store.close() for store in stores))


async def test_two_gateways_share_a_file(tmp_path: Path) -> None:
    one, other = (
        Cache(SqliteCacheStore(tmp_path / "vectors.sqlite", bytes_max=1 << 20)) for _ in range(2)
    )
    await asyncio.gather(
        *(cache.ask([f"{n}", "both"]) for n in range(40) for cache in (one, other))
    )
    marks = [(await cache.ask([f"{n}" for n in range(40)]))[0] for cache in (one, other)]
    for cache in (one, other):
        await cache.handler.close()

    assert marks == ["hit", "hit"]

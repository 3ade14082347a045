"""The embedding cache: which texts an engine is asked for, and what the client gets."""

import asyncio
import logging
import subprocess
import sys
import tempfile
from array import array
from base64 import b64decode
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from sage_gateway.cache import EmbeddingCache
from sage_gateway.cache.memory import MemoryCacheStore
from sage_gateway.cache.sqlite import SqliteCacheStore
from sage_gateway.cache.store_protocol import CacheStore
from sage_gateway.errors import EngineFailed, InvalidRequest
from sage_gateway.requests.request import Request, read_request
from sage_gateway.requests.response import Response
from sage_gateway.tenants.keys import Key

PATH = "/v1/embeddings"
DAY = {b"x-sage-cache": b"ttl=86400"}
DIM = 4


def vector(text: str) -> list[float]:
    digest = blake2b(text.encode(), digest_size=4 * DIM).digest()
    return array("f", (n / 2**31 for n in array("I", digest))).tolist()  # float32s


class Engine:
    """Embeds texts, and counts them; a text that starts with ``bad`` has no finite vector."""

    def __init__(self) -> None:
        self.texts: Counter[str] = Counter()
        self.requests: list[Request] = []

    async def handle(self, request: Request) -> Response:
        fields = orjson.loads(request.body)
        assert request.fields() == fields
        texts = [fields["input"]] if isinstance(fields["input"], str) else fields["input"]
        if "refused" in texts:
            raise InvalidRequest("refused")
        self.texts.update(texts)
        self.requests.append(request)
        rows = [
            {
                "object": "embedding",
                "index": index,
                "embedding": [None] * DIM if text.startswith("bad") else vector(text),
            }
            for index, text in enumerate(texts)
        ]
        used = sum(len(text) for text in texts)
        usage = {"prompt_tokens": used, "total_tokens": used}
        page = {"object": "list", "data": rows, "model": "m", "usage": usage}
        return Response(200, orjson.dumps(page), used={"in": used})


class Cache:
    """An embedding cache in front of an engine; clock and weights are the test's."""

    def __init__(self, store: CacheStore | None = None) -> None:
        self.now_s = 1_795_521_600.25
        self.weights: bytes | None = b"v1"
        self.engine = Engine()
        self.registry = CollectorRegistry()
        store = store or MemoryCacheStore(bytes_max=1 << 20, clock=lambda: self.now_s)
        self.handler = EmbeddingCache(
            store, lambda name: self.weights, self.registry, self.engine, clock=lambda: self.now_s
        )

    async def ask(
        self, texts: Any, headers: dict[bytes, bytes] = DAY, *, tenant: str = "acme", **more: Any
    ) -> tuple[str, list[list[float]], int]:
        """What the header says, the vectors, and the tokens that the answer counts."""
        body = {"model": "m", "input": texts, **more}
        key = Key("k", "", tenant, frozenset())
        request = read_request(PATH, headers, orjson.dumps(body), key=key, tenant=tenant)
        assert request.invalid is None
        found = await self.handler.handle(request)
        assert isinstance(found, Response)
        page = orjson.loads(found.body)
        assert [row["index"] for row in page["data"]] == list(range(len(page["data"])))
        assert page["usage"]["prompt_tokens"] == page["usage"]["total_tokens"]
        mark = dict(found.headers).get(b"x-sage-cache", b"").decode()
        vectors = [row["embedding"] for row in page["data"]]
        return mark, vectors, page["usage"]["prompt_tokens"]

    def count(self, outcome: str) -> float:
        name = "sage_gateway_embedding_cache_texts_total"
        return self.registry.get_sample_value(name, {"outcome": outcome}) or 0.0


@pytest.fixture
def cache() -> Cache:
    return Cache()


async def test_only_texts_without_a_known_vector_reach_the_engine(cache: Cache) -> None:
    first = await cache.ask(["a", "b", "c"])
    second = await cache.ask(["c", "new", "a", "new"])
    third = await cache.ask("new")

    assert first == ("miss", [vector(t) for t in "abc"], 3)
    assert second == ("partial", [vector(t) for t in ("c", "new", "a", "new")], 3)
    assert third == ("hit", [vector("new")], 0)
    assert cache.engine.texts == {"a": 1, "b": 1, "c": 1, "new": 1}
    assert [cache.count(name) for name in ("hit", "miss", "unkept")] == [4, 4, 0]


async def test_without_the_header_every_text_reaches_the_engine(cache: Cache) -> None:
    marks = [(await cache.ask(["a"], headers))[0] for headers in (DAY, {}, {}, DAY)]

    assert (marks, cache.engine.texts["a"]) == (["miss", "", "", "hit"], 3)


async def test_a_vector_comes_in_the_form_that_is_asked_for(cache: Cache) -> None:
    await cache.ask(["a"])
    _, [packed], _ = await cache.ask(["a"], encoding_format="base64")
    _, [numbers], _ = await cache.ask(["a"], encoding_format="float", user="someone")

    assert array("f", b64decode(packed)).tolist() == numbers == vector("a")
    assert cache.engine.texts["a"] == 1


@pytest.mark.parametrize("change", ["tenant", "weights", "dimensions", "unknown field", "age"])
async def test_a_vector_of_another_kind_is_not_given(cache: Cache, change: str) -> None:
    await cache.ask(["a"])
    tenant, more = "acme", {}
    match change:
        case "tenant":
            tenant = "other"
        case "weights":
            cache.weights = b"v2"
        case "dimensions":
            more = {"dimensions": DIM}
        case "unknown field":
            more = {"input_type": "query"}
        case "age":
            cache.now_s += 86_400.5

    mark, _, _ = await cache.ask(["a"], tenant=tenant, **more)

    assert (mark, cache.engine.texts["a"]) == ("miss", 2)


async def test_a_model_that_the_pool_does_not_know_is_not_cached(cache: Cache) -> None:
    cache.weights = None

    assert [(await cache.ask(["a"]))[0] for _ in range(2)] == ["", ""]


async def test_a_request_with_the_clients_own_key_is_not_split(cache: Cache) -> None:
    await cache.ask(["a"])
    own = {**DAY, b"idempotency-key": b"mine", b"x-request-id": b"1"}
    equal = {**DAY, b"idempotency-key": b"one", b"x-request-id": b"one"}

    marks = [(await cache.ask(["a", "b"], headers))[0] for headers in (own, equal)]

    assert (marks, cache.engine.texts["a"]) == (["", "partial"], 2)


async def test_a_vector_that_is_not_finite_is_given_once_and_never_stored(cache: Cache) -> None:
    for _ in range(2):
        mark, found, _ = await cache.ask(["bad", "good"])
        assert found[0] == [None] * DIM or mark == "partial"
        with pytest.raises(EngineFailed):  # nothing to put in its place
            await cache.ask(["good", "bad"])
        cache.now_s += 86_401

    assert cache.engine.texts["bad"] == 4
    assert cache.count("unkept") == 4


async def test_a_request_that_the_engine_refuses_is_refused(cache: Cache) -> None:
    await cache.ask(["a"])
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            await cache.ask(["a", "refused"])

    assert (await cache.ask(["a"]))[0] == "hit"


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

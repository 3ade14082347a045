"""What the response cache reads, looks up and stores, without a gateway around it."""

import sys
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from typing_extensions import override

from sage_gateway.cache import ResponseCache
from sage_gateway.cache.memory import MemoryCacheStore
from sage_gateway.config.storage_spec import CacheSpec
from sage_gateway.requests.request import Request, read_request
from sage_gateway.requests.response import Response
from sage_gateway.tenants.keys import Key

CHAT = "/v1/chat/completions"
ANSWER = orjson.dumps({"choices": [{"message": {"content": "hi"}}]})


class Engine:
    """Answers every request, and counts them."""

    def __init__(self) -> None:
        self.requests = 0

    async def handle(self, request: Request) -> Response:
        self.requests += 1
        return Response(200, ANSWER)


class CountedStore(MemoryCacheStore):
    """Counts the look-ups."""

    lookups = 0

    @override
    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.lookups += 1
        return await super().get(keys)


class Cache:
    """A response cache whose clock the test sets; ``handle`` is given to it."""

    def __init__(self) -> None:
        self.now_s = 1_795_521_600.25
        self.engine = Engine()
        self.store = CountedStore(bytes_max=1 << 20)
        self._cache = ResponseCache(
            CacheSpec(), self.store, CollectorRegistry(), self.engine, clock=lambda: self.now_s
        )

    async def ask(self, request: Request) -> str:
        """What the header of the answer says: ``hit``, ``miss``, or nothing."""
        found = await self._cache.handle(request)
        assert isinstance(found, Response)
        assert found.body == ANSWER
        return dict(found.headers).get(b"x-sage-cache", b"").decode()


@pytest.fixture
def cache() -> Cache:
    return Cache()


def chat(ttl_s: int = 0, key_ttl_s: int = 0, **more: Any) -> Request:
    body = {"model": "talk", "messages": [{"role": "user", "content": "hi"}], **more}
    headers = {b"x-sage-cache": b"ttl=%d" % ttl_s} if ttl_s else {}
    key = Key("k", "", "acme", frozenset(), cache_ttl_s=key_ttl_s)
    return read_request(CHAT, headers, orjson.dumps(body), key=key, tenant="acme")


async def test_an_answer_older_than_the_reader_accepts_is_a_miss(cache: Cache) -> None:
    stored = await cache.ask(chat(ttl_s=3600))
    cache.now_s += 60.5

    marks = [
        await cache.ask(chat(ttl_s=61)),
        await cache.ask(chat(key_ttl_s=61, temperature=0)),
        await cache.ask(chat(ttl_s=60)),
    ]

    assert (stored, marks) == ("miss", ["hit", "miss", "miss"])
    assert cache.engine.requests == 3


async def test_a_key_accepts_answers_up_to_its_own_age(cache: Cache) -> None:
    stored = await cache.ask(chat(ttl_s=3600, temperature=0))
    cache.now_s += 60.5

    marks = [await cache.ask(chat(key_ttl_s=ttl_s, temperature=0)) for ttl_s in (61, 60)]

    assert (stored, marks) == ("miss", ["hit", "miss"])


async def test_an_answer_is_fresh_again_after_it_was_replaced(cache: Cache) -> None:
    await cache.ask(chat(ttl_s=3600))
    cache.now_s += 60
    await cache.ask(chat(ttl_s=1))

    assert await cache.ask(chat(ttl_s=1)) == "hit"


async def test_an_answer_stored_without_its_time_is_not_found(cache: Cache) -> None:
    request = chat(ttl_s=60)
    named = orjson.dumps(["acme", CHAT, request.fields()], option=orjson.OPT_SORT_KEYS)
    await cache.store.put({blake2b(named, digest_size=16).digest(): ANSWER}, 60)

    assert await cache.ask(request) == "miss"
    assert await cache.ask(chat(ttl_s=60)) == "hit"


async def test_a_request_for_a_stream_is_neither_loaded_nor_looked_up(cache: Cache) -> None:
    requests = [chat(ttl_s=60, stream=True), chat(key_ttl_s=60, stream=True, temperature=0)]

    assert [await cache.ask(request) for request in requests] == ["", ""]
    assert [request.all_fields for request in requests] == [None, None]
    assert cache.store.lookups == 0


async def test_a_request_that_the_temperature_excludes_is_not_sorted(cache: Cache) -> None:
    dumped: list[object] = []

    def profile(_: object, event: str, called: object) -> None:
        if event == "c_call" and called is orjson.dumps:
            dumped.append(called)

    excluded, included = chat(key_ttl_s=60, temperature=0.7), chat(key_ttl_s=60, temperature=0)
    sys.setprofile(profile)
    try:
        marks = [await cache.ask(excluded)]
        sorted_by_then = len(dumped)
        marks.append(await cache.ask(included))
    finally:
        sys.setprofile(None)

    assert marks == ["", "miss"]
    assert (sorted_by_then, len(dumped)) == (0, 1)

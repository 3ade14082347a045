"""Response cache: a request with ``x-sage-cache: ttl=SECONDS`` may get an earlier, equal answer.

Two requests are equal if they are of one tenant, to one route, and their bodies are the same JSON
in any order and spelling. With the header, the client accepts any earlier answer, whatever its
temperature. An API key with ``cache_ttl_s`` accepts them for vectors, rankings and generations of
``temperature: 0``; its other requests go to the engine. A hit reaches no engine and costs no
tokens. Only whole answers are stored: a streamed one always comes from the engine.

An answer is kept for the seconds that the request which stored it named, and given to requests that
accept its age. So the milliseconds of the epoch at which it was stored precede it in the store.
"""

import logging
import time
from collections.abc import Callable
from hashlib import blake2b

import orjson
from prometheus_client import CollectorRegistry, Counter

from sage_flink.common import StoreUnavailable
from sage_gateway.cache.memory import MemoryCacheStore
from sage_gateway.cache.store_protocol import CacheStore
from sage_gateway.config.storage_spec import CacheSpec, LedgerSpec
from sage_gateway.errors import InvalidRequest
from sage_gateway.openai.completeness import is_complete
from sage_gateway.requests.request import Answering, Handler, Request
from sage_gateway.requests.response import JSON, Response, StreamingResponse

log = logging.getLogger("sage.gateway")

HEADER = b"x-sage-cache"
HIT, MISS = ((HEADER, b"hit"), (HEADER, b"miss"))
DETERMINISTIC = frozenset({"/v1/embeddings", "/v1/rerank"})
REST_S = 5.0
#: Of the stored answers; those of another version are not found.
VERSION = 2


class ResponseCache:
    """Handler that gives stored answers, and stores those of the next handler."""

    def __init__(
        self,
        spec: CacheSpec,
        store: CacheStore,
        registry: CollectorRegistry,
        next_: Handler,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spec = spec
        self._store = store
        self._next = next_
        self._clock = clock
        self._rests_until = 0.0
        requests = Counter(
            "sage_gateway_cache",
            "Requests for whole answers that accept a cached one: hit; miss; unkept, the answer "
            "cannot be stored; away, the store did not respond",
            ["outcome"],
            registry=registry,
        )
        self._counts = {name: requests.labels(name) for name in ("hit", "miss", "unkept", "away")}

    def handle(self, request: Request) -> Answering:
        """The stored answer, or that of the next handler, which is then stored."""
        ttl_s = request.cache_ttl_s or (request.key.cache_ttl_s if request.key else 0)
        key = _cache_key(request) if ttl_s and not _streams(request) else None
        return self._next.handle(request) if key is None else self._answer(request, key, ttl_s)

    async def _answer(
        self, request: Request, key: bytes, ttl_s: int
    ) -> Response | StreamingResponse:
        if body := await self._get(key, ttl_s):
            self._counts["hit"].inc()
            return Response(200, body, (JSON, HIT))
        found = await self._next.handle(request)
        if isinstance(found, StreamingResponse) or not is_complete(
            found.body, bytes_max=self._spec.answer_bytes_max
        ):
            self._counts["unkept"].inc()
            return found
        await self._put(key, found.body, ttl_s)
        return Response(found.status, found.body, (*found.headers, MISS))

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    async def _get(self, key: bytes, ttl_s: int) -> bytes | None:
        """The stored answer, if it is not older than ``ttl_s``."""
        if time.monotonic() < self._rests_until:
            return None
        try:
            found = await self._store.get(key)
        except StoreUnavailable as error:
            self._rest(error)
            return None
        if found is None:
            return None
        stored_ms, _, body = found.partition(b"\n")
        return body if self._clock() - int(stored_ms) / 1000 <= ttl_s else None

    async def _put(self, key: bytes, body: bytes, ttl_s: int) -> None:
        if time.monotonic() < self._rests_until:
            self._counts["away"].inc()
            return
        try:
            await self._store.put(key, b"%d\n%b" % (self._clock() * 1000, body), ttl_s)
        except StoreUnavailable as error:
            self._counts["away"].inc()
            self._rest(error)
        else:
            self._counts["miss"].inc()

    def _rest(self, error: StoreUnavailable) -> None:
        """Skip the store for ``REST_S``, so that no request waits for it."""
        log.warning("cache: %s; answering without it for %g s", error, REST_S)
        self._rests_until = time.monotonic() + REST_S


def store_of(spec: CacheSpec, ledger: LedgerSpec) -> CacheStore:
    """Redis where the idempotency store is there, else this process's memory."""
    if ledger.store == "redis":
        from sage_gateway.cache.redis import RedisCacheStore

        return RedisCacheStore(ledger.redis, bytes_max=spec.bytes_max)
    return MemoryCacheStore(bytes_max=spec.bytes_max)


def _streams(request: Request) -> bool:
    return bool(getattr(request.payload, "stream", False))


def _cache_key(request: Request) -> bytes | None:
    """A 16-byte hash, equal for equal requests; None where no answer is to be stored."""
    any_temperature = request.cache_ttl_s or request.path in DETERMINISTIC
    try:
        fields = request.fields()
        if not (any_temperature or fields.get("temperature") == 0):
            return None
        named = [VERSION, request.tenant, request.path, fields]
        canonical = orjson.dumps(named, option=orjson.OPT_SORT_KEYS)
    except (InvalidRequest, orjson.JSONEncodeError, RecursionError):
        return None
    return blake2b(canonical, digest_size=16).digest()

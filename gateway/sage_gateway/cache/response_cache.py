"""Response cache: a request with ``x-sage-cache: ttl=SECONDS`` may get an earlier, equal answer.

Two requests are equal if they are of one tenant, to one route, and their bodies are the same JSON
in any order and spelling. With the header, the client accepts any earlier answer, whatever its
temperature. An API key with ``cache_ttl_s`` accepts them for rankings and generations of
``temperature: 0``; its other requests go to the engine. A hit reaches no engine and costs no
tokens. Only whole answers are stored: a streamed one is always generated. Vectors are
cached text by text, see :mod:`~sage_gateway.cache.embedding_cache`.

An answer is kept for the seconds that the request which stored it named, and given to requests that
accept its age.
"""

import time
from collections.abc import Callable
from hashlib import blake2b

import orjson
from prometheus_client import CollectorRegistry, Counter

from sage_gateway.cache.aged_answers import AgedAnswers
from sage_gateway.cache.store_protocol import CacheStore
from sage_gateway.config.storage_spec import CacheSpec
from sage_gateway.errors import InvalidRequest
from sage_gateway.openai.completeness import is_complete
from sage_gateway.openai.routes import Payload
from sage_gateway.openai.schema import EmbeddingsRequest
from sage_gateway.requests.request import Answering, Handler, Request
from sage_gateway.requests.response import JSON, Response, StreamingResponse

HEADER = b"x-sage-cache"
HIT, MISS = ((HEADER, b"hit"), (HEADER, b"miss"))
RERANK = "/v1/rerank"
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
        self._answers = AgedAnswers(store, clock=clock)
        self._next = next_
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
        ttl_s = accepted_age_s(request)
        key = _cache_key(request) if ttl_s and _is_cacheable(request.payload) else None
        return self._next.handle(request) if key is None else self._answer(request, key, ttl_s)

    async def _answer(
        self, request: Request, key: bytes, ttl_s: int
    ) -> Response | StreamingResponse:
        [body] = await self._answers.get([key], ttl_s)
        if body:
            self._counts["hit"].inc()
            return Response(200, body, (JSON, HIT))
        found = await self._next.handle(request)
        if isinstance(found, StreamingResponse) or not is_complete(
            found.body, bytes_max=self._spec.answer_bytes_max
        ):
            self._counts["unkept"].inc()
            return found
        is_stored = await self._answers.put({key: found.body}, ttl_s)
        self._counts["miss" if is_stored else "away"].inc()
        return Response(found.status, found.body, (*found.headers, MISS))

    async def close(self) -> None:
        """Close the store."""
        await self._answers.close()


def accepted_age_s(request: Request) -> int:
    """How old a cached answer may be that the request is given; 0: none."""
    return request.cache_ttl_s or (request.key.cache_ttl_s if request.key else 0)


def _is_cacheable(payload: Payload | None) -> bool:
    return not isinstance(payload, EmbeddingsRequest) and not getattr(payload, "stream", False)


def _cache_key(request: Request) -> bytes | None:
    """A 16-byte hash, equal for equal requests; None where no answer is to be stored."""
    any_temperature = request.cache_ttl_s or request.path == RERANK
    try:
        fields = request.fields()
        if not (any_temperature or fields.get("temperature") == 0):
            return None
        named = [VERSION, request.tenant, request.path, fields]
        canonical = orjson.dumps(named, option=orjson.OPT_SORT_KEYS)
    except (InvalidRequest, orjson.JSONEncodeError, RecursionError):
        return None
    return blake2b(canonical, digest_size=16).digest()

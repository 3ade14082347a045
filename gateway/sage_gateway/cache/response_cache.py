"""The response cache: a request with ``x-sage-cache: ttl=SECONDS`` may get an equal one's answer.

Equal are two requests of one tenant to one route whose bodies say the same JSON, in whatever order
and spelling. The header is the caller's word that any earlier answer will do, whatever its
temperature. A key's ``cache_ttl_s`` says so for vectors, rankings and ``temperature: 0``; whatever
else its requests ask for is asked anew. A hit reaches no engine and costs no tokens. Only whole
answers are kept: one that is streamed is always asked anew.
"""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from hashlib import blake2b

import orjson
from prometheus_client import CollectorRegistry, Counter

from sage_flink.common import StoreUnavailable
from sage_gateway.cache.memory import MemoryStore
from sage_gateway.cache.store_protocol import TTL_S_MAX, Store
from sage_gateway.config.pool_spec import CacheSpec, LedgerSpec
from sage_gateway.errors import InvalidRequest
from sage_gateway.idempotency.decisions import keepable
from sage_gateway.requests.response import JSON, Answer, Stream

log = logging.getLogger("sage.gateway")

HEADER = b"x-sage-cache"
HIT, MISS = ((HEADER, b"hit"), (HEADER, b"miss"))
CERTAIN = frozenset({"/v1/embeddings", "/v1/rerank"})
REST_S = 5.0

Ask = Callable[[], Awaitable[Answer | Stream]]
_TTL = re.compile(rb"ttl=([1-9]\d{0,4})")


class Cache:
    """Where the answers are that may be given again."""

    def __init__(self, spec: CacheSpec, store: Store, registry: CollectorRegistry) -> None:
        self._spec = spec
        self._store = store
        self._rests_until = 0.0
        asked = Counter(
            "sage_gateway_cache",
            "Requests that asked for the cache: hit; miss; unkept, the answer was none to keep; "
            "away, its store was",
            ["outcome"],
            registry=registry,
        )
        self._counts = {name: asked.labels(name) for name in ("hit", "miss", "unkept", "away")}

    async def answer(
        self, tenant: str, path: str, body: bytes, ask: Ask, *, ttl_s: int, whatever: bool
    ) -> Answer | Stream:
        """The kept answer, or that of ``ask``, which is then kept for ``ttl_s``.

        ``whatever``: its temperature; else it must be 0.
        """
        key = _key(tenant, path, body, whatever=whatever)
        if key is None:
            return await ask()
        if kept := await self._kept(key):
            self._counts["hit"].inc()
            return Answer(200, kept, (JSON, HIT))
        found = await ask()
        if isinstance(found, Stream) or found.status != 200:
            self._counts["unkept"].inc()
            return found
        if not keepable(found.body, bytes_max=self._spec.answer_bytes_max):
            self._counts["unkept"].inc()
            return found
        await self._keep(key, found.body, ttl_s)
        return Answer(found.status, found.body, (*found.headers, MISS))

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()

    async def _kept(self, key: bytes) -> bytes | None:
        if time.monotonic() < self._rests_until:
            return None
        try:
            return await self._store.get(key)
        except StoreUnavailable as error:
            self._rest(error)
            return None

    async def _keep(self, key: bytes, body: bytes, ttl_s: int) -> None:
        if time.monotonic() < self._rests_until:
            self._counts["away"].inc()
            return
        try:
            await self._store.put(key, body, ttl_s)
        except StoreUnavailable as error:
            self._counts["away"].inc()
            self._rest(error)
        else:
            self._counts["miss"].inc()

    def _rest(self, error: StoreUnavailable) -> None:
        """Nobody waits for a store that is away; it is asked again ``REST_S`` later."""
        log.warning("cache: %s; answering without it for %g s", error, REST_S)
        self._rests_until = time.monotonic() + REST_S


def store_of(spec: CacheSpec, ledger: LedgerSpec) -> Store:
    """Redis where the ledger is there, else this process's memory."""
    if ledger.store == "redis":
        from sage_gateway.cache.redis import RedisStore

        assert ledger.url is not None, "checked with the file"
        return RedisStore(ledger.url, bytes_max=spec.bytes_max)
    return MemoryStore(bytes_max=spec.bytes_max)


def wished_ttl_s(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """How long the answer may be kept and given again; 0 where nobody asks for that.

    Raises:
        GatewayError: 400, the header says something else.
    """
    for name, value in headers:
        if name == HEADER:
            if found := _TTL.fullmatch(value):
                return int(found[1])
            message = f"x-sage-cache must be ttl=SECONDS, 1 to {TTL_S_MAX}"
            raise InvalidRequest(message, code="invalid_header", param="x-sage-cache")
    return 0


def _key(tenant: str, path: str, body: bytes, *, whatever: bool) -> bytes | None:
    """16 bytes of all that makes a request another one; None where no answer is to be kept.

    That is so of a body that is no JSON object too: the service says why.
    """
    try:
        page = orjson.loads(body)
        whole = orjson.dumps([tenant, path, page], option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, RecursionError):
        return None
    if not isinstance(page, dict):
        return None
    if not (whatever or path in CERTAIN or page.get("temperature") == 0):
        return None
    return blake2b(whole, digest_size=16).digest()

"""Embedding cache: texts whose vectors are known are not embedded again.

A request for embeddings with ``x-sage-cache: ttl=SECONDS``, or of an API key with ``cache_ttl_s``,
gets the vectors of the texts that one model embedded before from the cache, and those of the others
from the engine, which is asked for them alone, once each. So a new version of a document costs what
changed in it, and a text of many documents costs once, whatever requests they are in.

A vector is found again for the same tenant, text, model (engine, weights, arguments) and fields of
the request; the weights are known by name, size and time. Vectors are kept as float32, and given in
the form that a request asks for. A text from the cache costs no tokens. Vectors that are not finite
or of another length than the rest are never stored. Requests with an ``idempotency-key`` of the
client's own are not split: the key is that of the whole answer.
"""

import time
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import msgspec
import orjson
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as MetricCounter

from sage_flink.common import PoolError
from sage_flink.flow.calls.embeddings import of_one_size, read
from sage_gateway.cache.aged_answers import AgedAnswers
from sage_gateway.cache.response_cache import HEADER, HIT, MISS, accepted_age_s
from sage_gateway.cache.store_protocol import CacheStore
from sage_gateway.errors import EngineFailed, InvalidRequest
from sage_gateway.openai.engine_answer import tokens
from sage_gateway.openai.schema import EmbeddingsRequest
from sage_gateway.requests.request import Answering, Handler, Request
from sage_gateway.requests.response import JSON, Response, StreamingResponse

PARTIAL = (HEADER, b"partial")
#: Of the stored vectors; those of another version are not found.
VERSION = 1
#: Fields of a request that do not change its vectors. The model is identified by what it is.
_NOT_COMPARED = frozenset({"input", "model", "encoding_format", "user"})

#: Identifies a model by what decides its vectors; None for a name that is no model of the pool.
Fingerprint = Callable[[str], bytes | None]


class EmbeddingCache:
    """Handler that gives known vectors, and stores those of the next handler."""

    def __init__(
        self,
        store: CacheStore,
        fingerprint: Fingerprint,
        registry: CollectorRegistry,
        next_: Handler,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._vectors = AgedAnswers(store, clock=clock)
        self._fingerprint = fingerprint
        self._next = next_
        texts = MetricCounter(
            "sage_gateway_embedding_cache_texts",
            "Texts of requests that accept cached vectors: hit; miss, embedded by an engine; "
            "unkept, embedded and not stored",
            ["outcome"],
            registry=registry,
        )
        self._counts = {name: texts.labels(name) for name in ("hit", "miss", "unkept")}

    def handle(self, request: Request) -> Answering:
        """The vectors; those that are not known come from the next handler."""
        ttl_s = accepted_age_s(request)
        if ttl_s and isinstance(request.payload, EmbeddingsRequest) and not _has_own_key(request):
            return self._answer(request, request.payload, ttl_s)
        return self._next.handle(request)

    async def close(self) -> None:
        """Close the store."""
        await self._vectors.close()

    async def _answer(
        self, request: Request, payload: EmbeddingsRequest, ttl_s: int
    ) -> Response | StreamingResponse:
        texts = _texts(payload)
        keys = self._keys(request, payload, texts)
        if keys is None:
            return await self._next.handle(request)
        stored = await self._vectors.get(list(keys.values()), ttl_s)
        known = {text: v for text, v in zip(keys, stored, strict=True) if v is not None}
        new = [text for text in keys if text not in known]
        self._counts["hit"].inc(len(texts) - len(new))
        if not new:
            return Response(200, _page(payload, texts, known, 0), (JSON, HIT))
        if len(new) < len(texts):  # the handlers behind this one see the smaller request
            request.body = request.body_for(payload.model, {"input": new})
            request.payload = msgspec.structs.replace(payload, input=msgspec.Raw(orjson.dumps(new)))
            request.all_fields = None
        found = await self._next.handle(request)
        if isinstance(found, StreamingResponse) or found.status != 200:
            self._counts["unkept"].inc(len(new))
            return found
        embedded = await self._store(payload, found, {text: keys[text] for text in new}, ttl_s)
        if len(new) == len(texts):
            return Response(200, found.body, (*found.headers, MISS), found.used)
        if len(embedded) < len(new):
            reason = f"{payload.model}: the answer has no usable vector for each text"
            raise EngineFailed(reason, retry_after_s=1)
        used = tokens(found.body).get("in", 0)
        page = _page(payload, texts, {**known, **embedded}, used)
        return Response(200, page, (JSON, PARTIAL if known else MISS), found.used)

    def _keys(
        self, request: Request, payload: EmbeddingsRequest, texts: Sequence[str]
    ) -> dict[str, bytes] | None:
        """The key in the store of each text, once each; None where no vector is to be stored."""
        fingerprint = self._fingerprint(payload.model)
        if fingerprint is None or not texts:
            return None
        try:
            fields = {k: v for k, v in request.fields().items() if k not in _NOT_COMPARED}
            named = [VERSION, request.tenant, fingerprint.hex(), fields]
            compared = orjson.dumps(named, option=orjson.OPT_SORT_KEYS)
        except (InvalidRequest, orjson.JSONEncodeError, RecursionError):
            return None
        secret = blake2b(compared, digest_size=32).digest()
        return {t: blake2b(t.encode(), digest_size=16, key=secret).digest() for t in texts}

    async def _store(
        self, payload: EmbeddingsRequest, found: Response, new: Mapping[str, bytes], ttl_s: int
    ) -> dict[str, bytes]:
        """Store the usable vectors of an engine's answer; them by text."""
        try:
            slots = of_one_size(read(payload.model, found.body, len(new)), Counter())
        except PoolError:
            slots = []
        usable = {t: slot for t, slot in zip(new, slots, strict=False) if isinstance(slot, bytes)}
        rows = {new[text]: vector for text, vector in usable.items()}
        kept = len(rows) if rows and await self._vectors.put(rows, ttl_s) else 0
        self._counts["miss"].inc(kept)
        self._counts["unkept"].inc(len(new) - kept)
        return usable


def _has_own_key(request: Request) -> bool:
    chosen = request.headers.get(b"idempotency-key")
    return chosen is not None and chosen != request.headers.get(b"x-request-id")


def _texts(payload: EmbeddingsRequest) -> list[str]:
    """The texts of a request; none of one whose texts cannot be read."""
    try:
        found = msgspec.json.decode(payload.input, type=str | list[str])
        texts = [found] if isinstance(found, str) else found
        "".join(texts).encode()
    except (msgspec.DecodeError, UnicodeError):
        return []
    return texts


def _page(
    payload: EmbeddingsRequest, texts: Sequence[str], vectors: Mapping[str, bytes], used: int
) -> bytes:
    """OpenAI's answer for these texts."""
    as_base64 = payload.encoding_format == "base64"
    shown = {text: _embedding_json(vector, as_base64) for text, vector in vectors.items()}
    rows = [
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, shown[text])
        for index, text in enumerate(texts)
    ]
    form = (
        b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
    )
    return form % (b",".join(rows), orjson.dumps(payload.model), used, used)


def _embedding_json(vector: bytes, as_base64: bool) -> bytes:
    if as_base64:
        return b'"%b"' % b64encode(vector)
    return orjson.dumps(array("f", vector).tolist())

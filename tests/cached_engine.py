"""An embedding cache in front of an engine that counts its texts."""

from array import array
from collections import Counter
from hashlib import blake2b
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from sage_gateway.cache import EmbeddingCache
from sage_gateway.cache.memory import MemoryCacheStore
from sage_gateway.cache.store_protocol import CacheStore
from sage_gateway.errors import InvalidRequest
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

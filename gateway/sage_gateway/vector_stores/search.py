"""Searches a collection by text: embeds the query, searches the vector store, answers as OpenAI."""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import orjson
from cachetools import LRUCache
from typing_extensions import override

from sage_flink.common import ConfigError, Rejected, StoreUnavailable
from sage_flink.common import NotFound as CollectionNotFound
from sage_flink.db import RowFilter
from sage_gateway.controlplane.pool import Pool
from sage_gateway.errors import GatewayError, InvalidRequest, NoReplica, NotFound
from sage_gateway.openai.routes import collection_of
from sage_gateway.openai.schema import SearchRequest
from sage_gateway.requests.request import NO_HEADERS, Handler, Request, read_request
from sage_gateway.requests.response import Response
from sage_gateway.vector_stores.filters import requested_filter

THREADS = 8
#: Of each thread.
OPEN_MAX = 32
ABSENT = "it does not exist"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class Hit(Protocol):
    """A row found; ``fields`` has ``text``, and ``doc`` where it came from a document."""

    @property
    def id(self) -> str:
        """The row's key."""
        ...

    @property
    def score(self) -> float:
        """The larger, the nearer."""
        ...

    @property
    def fields(self) -> Mapping[str, Any]:
        """The other columns."""
        ...


class Store(Protocol):
    """An opened collection; calls block, and only one thread at a time may use it."""

    def search(
        self,
        vector: Sequence[float],
        top_k: int,
        *,
        where: RowFilter | None = None,
        min_score: float | None = None,
    ) -> Sequence[Hit]:
        """The ``top_k`` nearest rows that match, nearest first."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


Open = Callable[[str, int], Store]


def open_collection(name: str, dim: int) -> Store:
    """The collection of the configured vector store."""
    from sage_flink import db

    return db.collection(name, dim=dim).open(create=False)


class OpenStores(LRUCache[str, Store]):
    """The stores that one thread has open, by name; the least recently used is closed for more."""

    def close(self) -> None:
        """Close all stores."""
        while self:
            self.popitem()

    @override
    def popitem(self) -> tuple[str, Store]:
        name, store = super().popitem()
        store.close()
        return name, store


class VectorSearch:
    """The open collections, and the threads that wait for the store.

    ``embedder`` answers the request for the vector of a query.
    """

    def __init__(self, open_: Open, pool: Pool, embedder: Handler) -> None:
        self._open = open_
        self._pool = pool
        self._embedder = embedder
        self._stores: dict[int, OpenStores] = {}  # by thread
        self._threads = ThreadPoolExecutor(THREADS, "search")

    def close(self) -> None:
        """Close the stores, without waiting for the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for stores in self._stores.values():
            stores.close()
        self._stores.clear()

    async def answer(self, request: Request, search: SearchRequest) -> Response:
        """The page of hits.

        Raises:
            NotFound: there is no such collection, or it is that of other tenants.
            InvalidRequest: its filter cannot be read, or the store cannot evaluate it.
            NoReplica: the collection's embedding model cannot be used.
            StoreUnavailable: the store does not respond.
        """
        name = collection_of(request.path) or ""
        embedder = self._pool.spec.embedding_of(name)
        model = self._pool.find(embedder)
        if model is None or model.spec.dim is None:
            message = f"{embedder!r} is no embedding model with a dim in pool.yaml"
            raise NoReplica(message, retry_after_s=30)
        if not _NAME.fullmatch(name):
            raise _unknown(name, "not a name of a collection")
        loop = asyncio.get_running_loop()
        where = await loop.run_in_executor(self._threads, requested_filter, search.filters)
        ranking = search.ranking_options
        vector = await self._embed(request, embedder, search.query)
        if not self._pool.spec.finds(request.tenant, name):
            raise _unknown(name, ABSENT)  # after the same work as for one that is not there
        find = partial(
            self._search,
            name,
            model.spec.dim,
            vector,
            search.max_num_results,
            where=where,
            min_score=ranking and ranking.score_threshold,
        )
        hits = await loop.run_in_executor(self._threads, find)
        return Response(200, orjson.dumps(page(search.query, hits), default=str))

    async def _embed(self, request: Request, model: str, text: str) -> list[float]:
        body = orjson.dumps({"model": model, "input": [text], "encoding_format": "float"})
        embedding = read_request("/v1/embeddings", NO_HEADERS, body)
        embedding.progress = request.progress
        found = await self._embedder.handle(embedding)
        assert isinstance(found, Response)
        request.progress.add(found.used)
        vector: list[float] = orjson.loads(found.body)["data"][0]["embedding"]
        return vector

    def _search(
        self, name: str, dim: int, vector: list[float], top_k: int, **limits: Any
    ) -> Sequence[Hit]:
        stores = self._stores.setdefault(threading.get_ident(), OpenStores(OPEN_MAX))
        try:
            if name not in stores:
                stores[name] = self._open(name, dim)
            return stores[name].search(vector, top_k, **limits)
        except CollectionNotFound as error:
            raise _unknown(name, ABSENT) from error
        except ConfigError as error:
            raise InvalidRequest(str(error), code="wrong_collection", param="name") from error
        except Rejected as error:
            param = "filters" if str(error).startswith("filter:") else None
            raise InvalidRequest(str(error), code="invalid_search", param=param) from error
        except StoreUnavailable:
            if (away := stores.pop(name, None)) is not None:
                away.close()
            raise


def page(query: str, hits: Sequence[Hit]) -> dict[str, Any]:
    """OpenAI's page of search results; ``attributes`` are the chunk's id and other fields."""
    return {
        "object": "vector_store.search_results.page",
        "search_query": query,
        "data": [_item(hit) for hit in hits],
        "has_more": False,
        "next_page": None,
    }


def _item(hit: Hit) -> dict[str, Any]:
    text = str(hit.fields.get("text", ""))
    document = str(hit.fields.get("doc", hit.id))
    rest = {k: v for k, v in hit.fields.items() if k != "text"}
    return {
        "file_id": document,
        "filename": str(hit.fields.get("title") or document),
        "score": hit.score,
        "attributes": {"chunk_id": hit.id, **rest},
        "content": [{"type": "text", "text": text}],
    }


def _unknown(name: str, why: str) -> GatewayError:
    return NotFound(f"no vector store {name!r}: {why}", code="not_found", param="name")

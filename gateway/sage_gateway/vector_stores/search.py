"""Searches a collection by text: embeds the query, searches the vector store, answers as OpenAI.

A collection is one of ``sage.db``, by its name, or that of a vector store of the API, by the id of
the store. The second is its tenant's alone, and empty until the first file is indexed.
"""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import orjson

from sage_flink.common import ConfigError, Rejected, StoreUnavailable
from sage_flink.common import NotFound as CollectionNotFound
from sage_flink.db import RowFilter, field
from sage_gateway.controlplane.pool import Pool
from sage_gateway.errors import GatewayError, InvalidRequest, NotFound
from sage_gateway.openai.routes import collection_of
from sage_gateway.openai.schema import RankingOptions, SearchRequest
from sage_gateway.requests.request import NO_HEADERS, Handler, Request, read_request
from sage_gateway.requests.response import Response
from sage_gateway.vector_stores.catalog import StoreCatalog, is_store_id
from sage_gateway.vector_stores.embedding_models import embedding_model
from sage_gateway.vector_stores.filters import attribute, requested_filter
from sage_gateway.vector_stores.open_stores import OpenStores
from sage_gateway.vector_stores.store_tables import StoreTables

log = logging.getLogger("sage.gateway")
THREADS = 8
#: Of each thread.
OPEN_MAX = 32
ABSENT = "it does not exist"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class Hit(Protocol):
    """A row found; ``fields`` has ``text``, and ``doc`` where it is part of a document."""

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
        offset: int = 0,
        group_by: str = "",
    ) -> Sequence[Hit]:
        """The ``top_k`` nearest rows that match, nearest first."""
        ...

    def hybrid_search(
        self,
        vector: Sequence[float],
        text: str,
        top_k: int,
        *,
        where: RowFilter | None = None,
        offset: int = 0,
        group_by: str = "",
    ) -> Sequence[Hit]:
        """The ``top_k`` best rows that match, by vector and words, best first."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


Open = Callable[[str, int], Store]
Find = Callable[[Store, list[float]], Sequence[Hit]]


def open_collection(name: str, dim: int) -> Store:
    """The collection of the configured vector store."""
    from sage_flink import db

    return db.collection(name, dim=dim).open(create=False)


@dataclass(frozen=True, slots=True)
class SearchTarget:
    """A collection to search; ``has_files``: that of a vector store of the API."""

    name: str
    model: str
    dim: int
    visible: bool
    has_files: bool


class VectorSearch:
    """The open collections, and the threads that wait for the store.

    ``embedder`` answers the request for the vector of a query.
    """

    def __init__(self, open_: Open, catalog: StoreCatalog, pool: Pool, embedder: Handler) -> None:
        self._open = open_
        self._catalog = catalog
        self._pool = pool
        self._embedder = embedder
        self._stores: dict[int, OpenStores[Store]] = {}  # by thread
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
            InvalidRequest: its filter cannot be read, or the store cannot evaluate it; or it is
                hybrid, and the collection has no full-text search.
            NoReplica: the collection's embedding model cannot be used.
            StoreUnavailable: the store does not respond.
        """
        target = await self._target(request.tenant, collection_of(request.path) or "")
        loop = asyncio.get_running_loop()
        field_of = attribute if target.has_files else field
        where = await loop.run_in_executor(
            self._threads, requested_filter, search.filters, field_of
        )
        find = _search_method(search, where)
        vector = await self._embed(request, target.model, search.query)
        if not target.visible:
            raise _unknown(target.name, ABSENT)  # after the same work as for one that is not there
        search_store = partial(self._search, target, vector, find)
        hits = await loop.run_in_executor(self._threads, search_store)
        item = _file_item if target.has_files else _item
        return Response(200, orjson.dumps(page(search.query, map(item, hits)), default=str))

    async def _target(self, tenant: str, name: str) -> SearchTarget:
        spec = self._pool.spec
        if is_store_id(name):
            found = await self._catalog(StoreTables.use_store, tenant, name, time.time())
            if found is not None:
                return SearchTarget(name, found.model, found.dim, visible=True, has_files=True)
        model = embedding_model(self._pool, spec.embedding_of(name))
        if not _NAME.fullmatch(name):
            raise _unknown(name, "not a name of a collection")
        visible = spec.finds(tenant, name) and not is_store_id(name)
        return SearchTarget(name, model.name, model.dim, visible=visible, has_files=False)

    async def _embed(self, request: Request, model: str, text: str) -> list[float]:
        body = orjson.dumps({"model": model, "input": [text], "encoding_format": "float"})
        embedding = read_request("/v1/embeddings", NO_HEADERS, body)
        embedding.progress = request.progress
        try:
            found = await self._embedder.handle(embedding)
        except InvalidRequest as error:
            param = "query" if error.param == "input" else error.param
            raise InvalidRequest(str(error), code=error.code, param=param) from error
        assert isinstance(found, Response)
        request.progress.add(found.used)
        vector: list[float] = orjson.loads(found.body)["data"][0]["embedding"]
        return vector

    def _open_fitting(self, target: SearchTarget) -> Store:
        try:
            return self._open(target.name, target.dim)
        except CollectionNotFound:  # a ConfigError, too
            raise
        except ConfigError as error:
            raise _unfit(target.name, "does not fit its embedding model", error) from error

    def _search(self, target: SearchTarget, vector: list[float], find: Find) -> Sequence[Hit]:
        stores = self._stores.setdefault(threading.get_ident(), OpenStores(OPEN_MAX))
        name = target.name
        try:
            if name not in stores:
                stores[name] = self._open_fitting(target)
            return find(stores[name], vector)
        except CollectionNotFound as error:
            stores.discard(name)
            if target.has_files:
                return ()
            raise _unknown(name, ABSENT) from error
        except ConfigError as error:
            raise _unfit(name, "has no full text, which ranker hybrid searches", error) from error
        except Rejected as error:
            param = "filters" if str(error).startswith("filter:") else None
            raise InvalidRequest(str(error), code="invalid_search", param=param) from error
        except StoreUnavailable:
            stores.discard(name)
            raise


def _unfit(name: str, why: str, error: ConfigError) -> InvalidRequest:
    """The error of a collection that cannot be searched so; where it is stays in the log."""
    log.error("vector store %r cannot be searched: %s", name, error)
    message = f"vector store {name!r} {why}; see the gateway's log"
    return InvalidRequest(message, code="wrong_collection", param="name")


def _search_method(search: SearchRequest, where: RowFilter | None) -> Find:
    """What is called with the opened collection and the query's vector."""
    ranking, top_k = search.ranking_options or RankingOptions(), search.max_num_results
    least, offset, group_by = ranking.score_threshold, search.offset, search.group_by or ""
    if ranking.ranker == "auto":
        return lambda store, vector: store.search(
            vector, top_k, where=where, min_score=least, offset=offset, group_by=group_by
        )
    if least is not None:
        raise InvalidRequest(
            "score_threshold is a cosine similarity; the scores of ranker hybrid are of ranks",
            code="invalid_search",
            param="ranking_options.score_threshold",
        )
    return lambda store, vector: store.hybrid_search(
        vector, search.query, top_k, where=where, offset=offset, group_by=group_by
    )


def page(query: str, items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """OpenAI's page of search results."""
    return {
        "object": "vector_store.search_results.page",
        "search_query": query,
        "data": list(items),
        "has_more": False,
        "next_page": None,
    }


def _item(hit: Hit) -> dict[str, Any]:
    """A row of any collection; its ``attributes`` are the chunk's id and the other fields."""
    document = str(hit.fields.get("doc", hit.id))
    rest = {k: v for k, v in hit.fields.items() if k != "text"}
    name = str(hit.fields.get("title") or document)
    return _result(hit, document, name, {"chunk_id": hit.id, **rest})


def _file_item(hit: Hit) -> dict[str, Any]:
    """A row of a file, with the attributes of the file."""
    fields = hit.fields
    return _result(hit, str(fields["doc"]), str(fields["title"]), fields["attributes"])


def _result(hit: Hit, file_id: str, filename: str, attributes: Any) -> dict[str, Any]:
    return {
        "file_id": file_id,
        "filename": filename,
        "score": hit.score,
        "attributes": attributes,
        "content": [{"type": "text", "text": str(hit.fields.get("text", ""))}],
    }


def _unknown(name: str, why: str) -> GatewayError:
    return NotFound(f"no vector store {name!r}: {why}", code="not_found", param="name")

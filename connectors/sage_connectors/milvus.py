"""Milvus as a vector store: pymilvus 2.5 against Milvus 2.3 and later.

A row is acknowledged in about 4 ms and searchable one to two time ticks of the proxy later; a
search itself takes 3-8 ms. Measured write -> searchable for one row on 2 cores, p50, by the
server's ``proxy.timeTickInterval`` and the consistency that the search asks for:

=====================  ============  ======================  ==============
tick                   Bounded       Session (same client)   Strong
=====================  ============  ======================  ==============
50 ms                  93-97 ms      97 ms                   196 ms
200 ms (the default)   195-395 ms    196-392 ms              396-768 ms
=====================  ============  ======================  ==============

So a search asks for Bounded: it never waits, and Strong is not sooner but waits for the next tick.
Rows of 384 numbers in batches of 500: 4,000-4,400 a second new, 2,600-3,000 a second again.
Milvus upserts a row twice in one request as two rows with one primary key, so a batch is made
unique by id here.

``count`` and ``delete`` ask for Strong, which waits for the next tick: 50-100 ms at 50 ms. A delete
looks for the rows by document, and removes by primary key those of another version: at 150,000
rows and 50 documents the look-up takes 9 ms plus the tick where ``doc`` is a field of the schema
with an index, 22 ms where it is one of the dynamic fields (a collection made before rows had
versions, which is still supported). One expression with the versions in it (``doc == "a" and
version != "v" or ...``) did the same in 31 and 729 ms.

Source: Milvus 2.3 documentation, "Consistency level"; limits "Dynamic field" and "VarChar";
"Scalar index".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Collection as Collection_
from functools import partial
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]  # comes with pymilvus
import numpy as np
import orjson
import tenacity

from sage_connectors.isolate import BatchRefused, isolate
from sage_connectors.milvus_client import (
    DataType,
    MilvusClient,
    MilvusException,
    is_gone,
    is_refusal,
    may_be_refusal,
    message_of,
)
from sage_connectors.milvus_connection import open_client, refused_setting
from sage_connectors.milvus_schema import METRIC, schema_flaws
from sage_flink.common.errors import ConfigError, NotFound, SageError, StoreUnavailable
from sage_flink.db.collection import Collection
from sage_flink.db.json_fields import json_flaw
from sage_flink.db.vector_store import RefusedRow, RowDelete, SearchHit, VectorRow
from sage_flink.db.vectors import LABELS_BYTES_MAX, flaw, labels_flaw, numbers, query_vector

ID_BYTES_MAX = 512
IDS_MAX = 10_000
FIELDS_BYTES_MAX = 65_535
#: One attempt: the caller decides whether to wait, and pymilvus would try 75 times.
REQUEST: dict[str, Any] = {"timeout": 20.0, "retry_times": 0}
#: Index and load also wait for a server that is still recovering, for as long as one attempt.
PREPARE_S = 60.0
PREPARE: dict[str, Any] = {"timeout": PREPARE_S, "retry_times": 0}
HNSW = {"M": 16, "efConstruction": 200}
T = TypeVar("T")


class MilvusStore:
    """One collection of a Milvus server; made, indexed (HNSW, cosine) and loaded when absent."""

    def __init__(self, spec: Collection, create: bool = True) -> None:
        self.spec, self.server = spec, spec.server
        self.url = self.server.url
        self.client = open_client(self.server, f", collection {spec.name!r}")
        self._prepare(create)

    def upsert(self, rows: Sequence[VectorRow]) -> Sequence[RefusedRow]:
        """Store the rows; acknowledged by Milvus's log, so a crash of the server keeps them."""
        refused = [RefusedRow(row.id, reason) for row in rows if (reason := self._flaw(row))]
        flawed = {row.id for row in refused}
        unique = {row.id: row for row in rows if row.id not in flawed}
        by_server = isolate(list(unique.values()), self._upsert)
        return refused + [RefusedRow(row.id, reason) for row, reason in by_server]

    def delete(self, deletes: Sequence[RowDelete]) -> None:
        """Delete the documents' rows except those of the versions kept; waits for the next tick."""
        keeps: dict[str, set[str]] = {}
        for document, version in deletes:
            if document and not labels_flaw({"doc": document}):
                keeps.setdefault(document, set()).add(version)
        for where in _among("doc", sorted(keeps)):
            found = self._query(where, ["id", "doc", "version"])
            stale = [row["id"] for row in found if not _is_kept(row, keeps[row["doc"]])]
            for at in range(0, len(stale), IDS_MAX):
                ids = stale[at : at + IDS_MAX]
                self._call(partial(self.client.delete, self.spec.name, ids, **REQUEST), "delete")

    def search(self, vector: Sequence[float], top_k: int) -> list[SearchHit]:
        """The nearest rows by HNSW; approximate, ef is at least 64 and at least twice top_k."""
        query = numbers(query_vector(vector, top_k, dim=self.spec.dim))
        answer = self._call(
            lambda: self.client.search(
                self.spec.name,
                data=[list(query)],
                limit=top_k,
                search_params={"metric_type": METRIC, "params": {"ef": max(64, 2 * top_k)}},
                output_fields=["$meta", *self.labels],
                consistency_level="Bounded",
                **REQUEST,
            ),
            "search",
        )
        return [
            SearchHit(hit["id"], float(hit["distance"]), self._stored_fields(hit["entity"]))
            for hit in answer[0]
        ]

    def _stored_fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields as they were written: the schema stores a label that is absent as empty."""
        return {k: v for k, v in fields.items() if v != "" or k not in self.labels}

    def count(self, ids: Collection_[str] | None = None) -> int:
        """How many rows there are, or of ``ids``; waits for the next time tick."""
        if ids is None:
            return self._count("")
        return sum(map(self._count, _among("id", sorted(ids))))

    def _count(self, where: str) -> int:
        return int(self._query(where, ["count(*)"])[0]["count(*)"])

    def _query(self, where: str, output_fields: list[str]) -> list[dict[str, Any]]:
        """What is there now: waits until all writes acknowledged before can be seen."""
        answer = self._call(
            lambda: self.client.query(
                self.spec.name,
                filter=where,
                output_fields=output_fields,
                consistency_level="Strong",
                **REQUEST,
            ),
            "query",
        )
        return list(answer)

    def close(self) -> None:
        """Close the connection; no write is pending."""
        self.client.close()

    def drop(self) -> None:
        """Delete the collection with all its rows. For tests and tools."""
        self._call(lambda: self.client.drop_collection(self.spec.name, **REQUEST), "drop")

    def _upsert(self, rows: Sequence[VectorRow]) -> None:
        data = [
            {
                **dict.fromkeys(self.labels, ""),  # a field of the schema cannot be left out
                **row.fields,
                "id": row.id,
                "vector": np.frombuffer(row.vector, "<f4"),
            }
            for row in rows
        ]
        try:
            self._send(data)
        except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
            if is_refusal(error) or self._blames(data, error):
                raise BatchRefused(message_of(error)) from error

    def _send(self, data: list[dict[str, Any]]) -> None:
        self.client.upsert(self.spec.name, data, **REQUEST)

    def _blames(self, data: list[dict[str, Any]], error: Exception) -> bool:
        """Whether an error without a known code is about the rows; if not they are stored now.

        Several rows are tried apart. Of one the server is asked for another write, a delete that
        matches nothing, and the row has one more try after it: else the caller would wait for a
        server that answers.

        Raises:
            StoreUnavailable: the server takes no writes.
        """
        if is_gone(error) or not may_be_refusal(error):
            raise self._unavailable("upsert", error) from error
        if len(data) > 1:
            return True
        self._call(partial(self.client.delete, self.spec.name, [""], **REQUEST), "delete")
        try:
            self._send(data)
        except MilvusException:
            return True
        return False

    def _flaw(self, row: VectorRow) -> str:
        if not row.id or (size := len(row.id.encode(errors="replace"))) > ID_BYTES_MAX:
            got = f"{size} bytes" if row.id else "an empty id"
            return f"id must have 1 to {ID_BYTES_MAX} bytes, got {got}"
        if reason := labels_flaw(row.fields) or json_flaw(row.fields):
            return reason
        if (size := len(orjson.dumps(row.fields))) > FIELDS_BYTES_MAX:
            return (
                f"fields have {size} bytes as JSON, Milvus takes {FIELDS_BYTES_MAX}; cut the text"
            )
        if reserved := {"id", "vector", "$meta"} & row.fields.keys():
            return f"field {min(reserved)!r} is Milvus's own; rename it"
        return flaw(row.vector, dim=self.spec.dim)

    def _prepare(self, create: bool) -> None:
        name = self.spec.name
        if not self._call(lambda: self.client.has_collection(name, **REQUEST), "look"):
            if not create:
                raise NotFound(f"no collection {name!r} at {self.url}")
            self._create()
        about = self._call(lambda: self.client.describe_collection(name, **REQUEST), "describe")
        if flaws := schema_flaws(about, self.spec.dim):
            raise self._unfit("; ".join(flaws))
        self.labels = [f["name"] for f in about["fields"] if f["name"] in LABELS_BYTES_MAX]
        # The server answered just now. Where its parts have lost each other (all that runs stood
        # still for 28 s) it refuses at once, with "nodes not enough", until it is whole again.
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(StoreUnavailable),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=2),
            stop=tenacity.stop_after_delay(PREPARE_S),
            reraise=True,
        )
        retry(self._call, self._index_and_load, "load")
        index = self._call(lambda: self.client.describe_index(name, "vector", **REQUEST), "index")
        if (metric := str(index["metric_type"])) != METRIC:
            raise self._unfit(f"its index compares by {metric}, got {METRIC}")

    def _unfit(self, why: str) -> ConfigError:
        return ConfigError(
            f"collection {self.spec.name!r} at {self.url}: {why}; use another name or drop it"
        )

    def _create(self) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=ID_BYTES_MAX)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.spec.dim)
        for name, bytes_max in LABELS_BYTES_MAX.items():
            schema.add_field(name, DataType.VARCHAR, max_length=bytes_max)
        try:
            self.client.create_collection(
                self.spec.name, schema=schema, consistency_level="Bounded", **REQUEST
            )
        except (MilvusException, grpc.RpcError) as error:
            # Another writer may have been first, with this dim or another: describe shows which.
            if not self._call(
                lambda: self.client.has_collection(self.spec.name, **REQUEST), "look"
            ):
                raise self._unavailable("create", error) from error

    def _index_and_load(self) -> None:
        if "vector" not in self.client.list_indexes(self.spec.name, **REQUEST):
            index = self.client.prepare_index_params()
            # In this order: the vector's index is the sign that all exist, and a collection that
            # another writer has loaded without one of them cannot be loaded with it.
            if "doc" in self.labels:
                index.add_index("doc", index_type="Trie")
            index.add_index("vector", index_type="HNSW", metric_type=METRIC, params=HNSW)
            self.client.create_index(self.spec.name, index, **PREPARE)
        self.client.load_collection(self.spec.name, **PREPARE)

    def _call(self, ask: Callable[[], T], what: str) -> T:
        try:
            return ask()
        except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
            raise self._unavailable(what, error) from error

    def _unavailable(self, what: str, error: Exception) -> SageError:
        if is_gone(error):
            return NotFound(
                f"Milvus at {self.url}: {what} failed: collection {self.spec.name!r} was dropped, "
                "with all its rows; a job that writes into it makes it anew when it restarts, "
                "without them: to have them again, submit the job from the start of its source"
            )
        if setting := refused_setting(self.server, error):
            return ConfigError(f"{self.server.where}: {setting}: {message_of(error)}")
        return StoreUnavailable(
            f"Milvus at {self.url}, collection {self.spec.name!r}: {what} failed: "
            f"{message_of(error)}; `sage ps` shows its state"
        )


def _among(field: str, names: Sequence[str]) -> Iterator[str]:
    """Expressions for rows with one of ``names`` in ``field``; Milvus quotes text as JSON does."""
    for at in range(0, len(names), IDS_MAX):
        yield f"{field} in {orjson.dumps(names[at : at + IDS_MAX]).decode()}"


def _is_kept(row: Mapping[str, Any], keeps: Collection_[str]) -> bool:
    version = row.get("version")
    return bool(version) and all(version == keep for keep in keeps)

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

A search of a segment that still grows, of 2,000 rows or more, probes 16 of 128 clusters
(``interimIndex`` of milvus.yaml), whatever the filter: of 523 matching rows among 5,000 it found
55. Reads by filter are exact. It applies to filtered searches of every collection, and to those
with snapshots most, whose older versions are filtered out: recall at 10 of 8 random numbers was
0.88 with 9 of 10 rows older versions.

Source: Milvus 2.3 documentation, "Consistency level"; limits "Dynamic field" and "VarChar";
"Scalar index".
"""

from collections.abc import Collection as Collection_
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import grpc  # type: ignore[import-untyped]  # installed with pymilvus
import numpy as np
import orjson

from sage_connectors.isolate import BatchRefused, isolate
from sage_connectors.milvus_client import (
    MilvusException,
    is_gone,
    is_refusal,
    may_be_refusal,
    message_of,
)
from sage_connectors.milvus_collection import ID_BYTES_MAX, REQUEST
from sage_connectors.milvus_full_text import TEXT_COLUMN
from sage_connectors.milvus_reads import IDS_MAX, MilvusReads, among
from sage_flink.db.filters import RowFilter
from sage_flink.db.full_text import text_of
from sage_flink.db.json_fields import json_flaw
from sage_flink.db.vector_store import RefusedRow, RowDelete, VectorRow
from sage_flink.db.vectors import flaw, labels_flaw

FIELDS_BYTES_MAX = 65_535


class MilvusStore(MilvusReads):
    """A collection that is read and written."""

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
        for where in among("doc", sorted(keeps)):
            found = self._query(where, ["id", "doc", "version"])
            stale = [row["id"] for row in found if not _is_kept(row, keeps[row["doc"]])]
            self._delete_ids(stale)

    def delete_where(self, where: RowFilter) -> int:
        """Look for the rows that match, and delete them by their ids; waits for the next tick."""
        found = self.ids(where)
        self._delete_ids(found)
        return len(found)

    def _delete_ids(self, ids: Sequence[str]) -> None:
        for at in range(0, len(ids), IDS_MAX):
            some = ids[at : at + IDS_MAX]
            self._call(partial(self.client.delete, self.spec.name, some, **REQUEST), "delete")

    def _upsert(self, rows: Sequence[VectorRow]) -> None:
        data = [
            {
                **dict.fromkeys(self.labels, ""),  # a field of the schema cannot be left out
                **row.fields,
                **({TEXT_COLUMN: text_of(row.fields)} if self.full_text else {}),
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
        if reserved := {"$meta", *self.reserved} & row.fields.keys():
            return f"field {min(reserved)!r} is Milvus's own; rename it"
        return flaw(row.vector, dim=self.spec.dim)


def _is_kept(row: Mapping[str, Any], keeps: Collection_[str]) -> bool:
    version = row.get("version")
    return bool(version) and all(version == keep for keep in keeps)

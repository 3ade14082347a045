"""Rows that only the Milvus server refuses, and collections of an older schema."""

import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sage_connectors.milvus_client import DataType, MilvusClient, MilvusException, message_of
from sage_connectors.milvus_schema import schema_flaws
from sage_flink.common import ConfigError, NotFound, Record
from sage_flink.db import Collection, RowDelete, VectorRow, collection
from sage_flink.db.vectors import pack


@pytest.mark.service
def test_rows_that_the_server_refuses_are_reported_and_the_others_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sage_connectors.milvus import MilvusStore

    monkeypatch.setattr(MilvusStore, "_flaw", lambda self, row: "")
    store = MilvusStore(collection(f"conformance_{uuid.uuid4().hex}", dim=2))
    good = pack([1.0, 2.0])
    rows = [
        VectorRow(f"r{n}", good, {"text": "x" * (70_000 if n == 7 else 10)}) for n in range(100)
    ]
    rows += [VectorRow("i" * 600, good), VectorRow("nan", pack([float("nan"), 1.0]))]

    refused = {row.id: row.reason for row in store.upsert(rows)}

    assert refused.keys() == {"r7", "i" * 600, "nan"}
    assert "exceeds max length" in refused["r7"]
    assert store.count() == 99
    store.drop()
    store.close()


@pytest.fixture
def spec() -> Iterator[Collection]:
    made = collection(f"conformance_{uuid.uuid4().hex}", dim=2)
    yield made
    made.open().drop()  # type: ignore[attr-defined]


@pytest.mark.service
def test_three_poison_rows_of_five_hundred_cost_a_few_dozen_requests(spec: Collection) -> None:
    from sage_connectors.milvus import MilvusStore

    class Unchecked(MilvusStore):
        """Leaves validation to the server and counts the requests."""

        requests = 0

        def _flaw(self, row: VectorRow) -> str:
            return ""

        def _upsert(self, rows: Sequence[VectorRow]) -> None:
            self.requests += 1
            super()._upsert(rows)

    store = Unchecked(spec)
    long = {3, 250, 499}
    rows = [
        VectorRow(f"r{n}", pack([1.0, n]), {"text": "x" * (70_000 if n in long else 10)})
        for n in range(500)
    ]

    refused = store.upsert(rows)

    assert {row.id for row in refused} == {"r3", "r250", "r499"}
    assert (store.count(), store.requests) == (497, 47)
    store.close()


@pytest.mark.service
def test_a_collection_created_before_rows_had_versions_still_works(spec: Collection) -> None:
    from pymilvus import DataType, MilvusClient

    from sage_connectors.milvus import MilvusStore

    class OldSchema(MilvusStore):
        """Creates the collection with the schema of earlier releases."""

        def _create(self) -> None:
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
            schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=512)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
            self.client.create_collection(spec.name, schema=schema)

    before = OldSchema(spec)
    assert before.labels == []
    vector = pack([1.0, 2.0])
    before.upsert([VectorRow(f"a{n}", vector, {"doc": 'a"', "text": "old"}) for n in range(5)])
    store = spec.open()
    store.upsert([VectorRow("a0", vector, {"doc": 'a"', "version": "v2"}), VectorRow("b", vector)])
    store.delete([RowDelete('a"', "v2")])

    assert store.count() == 2
    assert store.count({"a0", "b"}) == 2
    for opened in (before, store):
        opened.close()


def test_a_log_that_is_open_when_milvus_is_first_used_stays_open() -> None:
    program = """
import logging, sys
class LogHandler(logging.StreamHandler):
    def close(self):
        print("closed before the end")
handler = LogHandler(sys.stdout)
logging.getLogger().addHandler(handler)
import sage_connectors.milvus
logging.getLogger("sage_flink").warning("logged")
handler.close = lambda: None
"""

    run = [sys.executable, "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "logged\n"


def field(name: str, kind: DataType, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "params": {}, **more}


KEY = field("id", DataType.VARCHAR, is_primary=True)
VECTOR = field("vector", DataType.FLOAT_VECTOR) | {"params": {"dim": 2}}


@pytest.mark.parametrize(
    ("fields", "flaws"),
    [
        ([KEY, VECTOR, field("doc", DataType.VARCHAR)], []),
        ([KEY, VECTOR, field("more", DataType.INT64, nullable=True)], []),
        ([VECTOR], ["its key is not a field 'id'"]),
        (
            [field("pk", DataType.VARCHAR, is_primary=True), VECTOR],
            ["its key is not a field 'id'", "it requires a field 'pk'"],
        ),
        (
            [field("id", DataType.INT64, is_primary=True), VECTOR],
            ["its key 'id' is not VARCHAR but INT64"],
        ),
        ([KEY | {"auto_id": True}, VECTOR], ["it makes the keys itself"]),
        ([KEY], ["it has no field 'vector'"]),
        (
            [KEY, field("vector", DataType.FLOAT16_VECTOR)],
            ["its field 'vector' is not FLOAT_VECTOR but FLOAT16_VECTOR"],
        ),
        ([KEY, VECTOR, field("price", DataType.DOUBLE)], ["it requires a field 'price'"]),
        ([KEY, VECTOR | {"params": {"dim": 3}}], ["it has dim 3, got dim 2"]),
    ],
)
def test_a_schema_that_cannot_hold_the_rows_is_found(
    fields: list[dict[str, Any]], flaws: list[str]
) -> None:
    assert schema_flaws({"fields": fields, "enable_dynamic_field": True}, 2) == flaws
    fixed = schema_flaws({"fields": fields, "enable_dynamic_field": False}, 2)
    assert "it takes no dynamic fields" in fixed


FULL_TEXT = [
    field("full_text", DataType.VARCHAR),
    field("full_text_bm25", DataType.SPARSE_FLOAT_VECTOR),
]
BM25 = {"input_field_names": ["full_text"], "output_field_names": ["full_text_bm25"]}


@pytest.mark.parametrize(
    ("fields", "functions", "flaws"),
    [
        ([KEY, VECTOR, *FULL_TEXT], [BM25], []),
        (
            [KEY, VECTOR],
            [],
            [
                "it has id VARCHAR, vector FLOAT_VECTOR, got full_text=True, which has also "
                "full_text VARCHAR, full_text_bm25 SPARSE_FLOAT_VECTOR and a BM25 function "
                "between them"
            ],
        ),
    ],
)
def test_a_schema_without_full_text_is_shown_beside_the_one_that_is_needed(
    fields: list[dict[str, Any]], functions: list[dict[str, Any]], flaws: list[str]
) -> None:
    about = {"fields": fields, "functions": functions, "enable_dynamic_field": True}
    assert schema_flaws(about, 2, full_text=True) == flaws
    assert schema_flaws(about, 2) == []


@pytest.fixture
def alien(spec: Collection) -> Iterator[MilvusClient]:
    """A client that makes and drops the collection of ``spec`` by itself."""
    client = MilvusClient(uri=spec.server.url, alias=f"test-{uuid.uuid4().hex}")
    yield client
    client.drop_collection(spec.name)
    client.close()


@pytest.mark.service
@pytest.mark.parametrize("metric", ["L2", "IP"])
def test_a_collection_with_another_metric_is_refused(
    spec: Collection, alien: MilvusClient, metric: str
) -> None:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=512)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=spec.dim)
    index = alien.prepare_index_params()
    build = {"M": 16, "efConstruction": 64}
    index.add_index("vector", index_type="HNSW", metric_type=metric, params=build)
    alien.create_collection(spec.name, schema=schema, index_params=index)

    with pytest.raises(ConfigError, match=f"its index compares by {metric}, got COSINE"):
        spec.prepare()


@pytest.mark.service
def test_a_collection_with_another_schema_is_refused(spec: Collection, alien: MilvusClient) -> None:
    schema = MilvusClient.create_schema(auto_id=True, enable_dynamic_field=False)
    schema.add_field("pk", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=spec.dim)
    alien.create_collection(spec.name, schema=schema)

    with pytest.raises(ConfigError, match="its key is not a field 'id'; it takes no dynamic"):
        spec.prepare()


@pytest.mark.service
def test_a_server_without_bm25_is_named_with_what_to_do(spec: Collection) -> None:
    texts = collection(spec.name, dim=spec.dim, full_text=True)

    for opened in (texts.prepare, texts.open, texts.writer):
        with pytest.raises(
            ConfigError,
            match=r"full_text=True needs BM25, which Milvus has since 2\.5, and milvus-lite; this "
            r"server is v?2\.3\.\d.*: name a connection to such a server",
        ):
            opened()


@pytest.mark.service
def test_a_collection_that_is_dropped_while_it_is_written_is_a_clear_failure(
    spec: Collection,
) -> None:
    writer, dropper = spec.writer(), spec.open()
    row = Record("a", {"vector": pack([1.0] * spec.dim)})
    assert writer.write([row]) == []

    dropper.drop()

    with pytest.raises(NotFound, match=f"collection '{spec.name}' was dropped, with all its rows"):
        writer.write([row])
    again = spec.writer()  # of the restarted job
    assert again.write([row]) == []
    for opened in (writer, dropper, again):
        opened.close()


STACK_TRACE = """call query coordinator LoadCollection: stack trace: \
/pkg/tracer/stack_trace.go:51 github.com/milvus-io/milvus/pkg/tracer.StackTrace
/internal/util/grpcclient/client.go:550 github.com/milvus-io/grpcclient.(*ClientBase[...]).Call
/usr/local/go/src/runtime/asm_amd64.s:1571 runtime.goexit: rpc error: context deadline exceeded"""


def test_a_message_of_the_server_has_the_reason_and_no_stack_trace() -> None:
    error = MilvusException(
        65535, f"[load_collection] Retry run out of 0 retry times, message={STACK_TRACE}"
    )
    assert message_of(error) == (
        "call query coordinator LoadCollection: rpc error: context deadline exceeded"
    )


@pytest.mark.service
def test_a_collection_is_loaded_when_the_server_is_whole_again() -> None:
    from sage_connectors.milvus import MilvusStore

    class Recovering(MilvusStore):
        """A server whose query node has lost its coordinator, at the first two attempts."""

        attempts = 0

        def _index_and_load(self) -> None:
            self.attempts += 1
            if self.attempts < 3:
                raise MilvusException(65535, "nodes not enough")
            super()._index_and_load()

    store = Recovering(collection(f"conformance_{uuid.uuid4().hex}", dim=2))

    assert store.attempts == 3
    assert store.count() == 0
    store.drop()
    store.close()

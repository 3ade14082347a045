"""A collection of a Milvus server: opened, created and loaded, and what its errors mean."""

from collections.abc import Callable
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]  # installed with pymilvus
import tenacity

from sage_connectors.milvus_client import (
    DataType,
    MilvusClient,
    MilvusException,
    is_gone,
    message_of,
)
from sage_connectors.milvus_connection import (
    is_before_2_5,
    open_client,
    refused_setting,
    server_version,
)
from sage_connectors.milvus_full_text import (
    BM25_COLUMN,
    BM25_INDEX,
    COLUMNS,
    add_bm25,
    has_bm25,
)
from sage_connectors.milvus_schema import METRIC, has_epochs, schema_flaws
from sage_flink.common.errors import ConfigError, NotFound, SageError, StoreUnavailable
from sage_flink.db.collection import Collection
from sage_flink.db.snapshots import EPOCHS, ROW
from sage_flink.db.vectors import LABELS_BYTES_MAX

ID_BYTES_MAX = 512
#: One attempt: the caller decides whether to wait, and pymilvus would try 75 times.
REQUEST: dict[str, Any] = {"timeout": 20.0, "retry_times": 0}
#: Index and load also wait for a server that is still recovering, for as long as one attempt.
PREPARE_S = 60.0
PREPARE: dict[str, Any] = {"timeout": PREPARE_S, "retry_times": 0}
HNSW = {"M": 16, "efConstruction": 200}
T = TypeVar("T")


class MilvusCollection:
    """One collection of a Milvus server; made, indexed (HNSW, cosine) and loaded when absent."""

    def __init__(self, spec: Collection, create: bool = True) -> None:
        self.spec, self.server = spec, spec.server
        self.url = self.server.url
        self.client = open_client(self.server, f", collection {spec.name!r}")
        try:
            self._prepare(create)
        except BaseException:
            self.client.close()
            raise

    def close(self) -> None:
        """Close the connection; no write is pending."""
        self.client.close()

    def drop(self) -> None:
        """Delete the collection with all its rows. For tests and tools."""
        self._call(lambda: self.client.drop_collection(self.spec.name, **REQUEST), "drop")

    def _prepare(self, create: bool) -> None:
        name = self.spec.name
        if self.spec.full_text:
            self._require_server_with_bm25()
        if not self._call(lambda: self.client.has_collection(name, **REQUEST), "look"):
            if not create:
                raise NotFound(f"no collection {name!r} at {self.url}")
            self._create()
        about = self._describe()
        if flaws := schema_flaws(about, self.spec.dim, self.spec.full_text, self.spec.snapshots):
            raise self._unfit("; ".join(flaws))
        self.snapshots = has_epochs(about)
        self.full_text = has_bm25(about)
        #: Not fields of a row, whose names they therefore cannot be.
        self.reserved = {"id", "vector"} | (COLUMNS if self.full_text else frozenset())
        self.columns = [f["name"] for f in about["fields"] if f["name"] not in self.reserved]
        self.labels = [name for name in self.columns if name in LABELS_BYTES_MAX]
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

    def _require_server_with_bm25(self) -> None:
        version = self._call(lambda: server_version(self.client), "version")
        if is_before_2_5(version):
            raise ConfigError(
                f"collection {self.spec.name!r} at {self.url}: full_text=True needs BM25, which "
                f"Milvus has since 2.5, and milvus-lite; this server is {version}: name a "
                "connection to such a server (connection=), or leave out full_text"
            )

    def _describe(self) -> Any:
        return self._call(
            lambda: self.client.describe_collection(self.spec.name, **REQUEST), "describe"
        )

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
        if self.spec.full_text:
            add_bm25(schema)
        if self.spec.snapshots:
            schema.add_field(ROW, DataType.VARCHAR, max_length=ID_BYTES_MAX)
            for name in EPOCHS:
                schema.add_field(name, DataType.INT64)
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
                # Milvus 2.3 has no inverted index, and milvus-lite no other one for text.
                old = is_before_2_5(server_version(self.client))
                index.add_index("doc", index_type="Trie" if old else "INVERTED")
            if self.full_text:
                index.add_index(BM25_COLUMN, **BM25_INDEX)
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

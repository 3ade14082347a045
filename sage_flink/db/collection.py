"""A collection of a vector store as a value: a sink, and how a record becomes a row.

The store is found by its name: an entry point of the group ``sage.db`` that takes the Collection
and returns an open VectorStore.
"""

import logging
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from sage_flink.common.adapters import adapter
from sage_flink.common.connections import MilvusConnection
from sage_flink.common.connections_file import connection_to, named_connection, one_address
from sage_flink.common.errors import ConfigError, StoreUnavailable
from sage_flink.common.validation import require
from sage_flink.db.row_writer import RowWriter
from sage_flink.db.snapshot_reads import SnapshotReads
from sage_flink.db.snapshot_rows import SnapshotRows
from sage_flink.db.snapshot_writer import SnapshotWriter
from sage_flink.db.vector_store import VectorStore
from sage_flink.flow.ports import BatchLimits

LOG = logging.getLogger("sage.db")
GROUP = "sage.db"
#: The stores that come with sage, for a checkout that is on the path but not installed.
SHIPPED = {
    "memory": "sage_flink.db.memory:MemoryVectorStore",
    "milvus": "sage_connectors.milvus:MilvusStore",
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
DIM_MAX = 32_768
KEEP_S_LEAST = 10


@dataclass(frozen=True, slots=True)
class Collection:
    """Rows with a vector of ``dim`` float32 each, in ``store``.

    The store is reached by a ``connection`` by its name, or at a ``url`` that needs no login
    (empty: the settings').

    With ``full_text`` rows are found by the words of their field ``text`` too, by BM25. It needs
    Milvus 2.5 or later, or milvus-lite. A collection that was made with it can be opened without,
    and is searched by words all the same.

    With ``snapshots`` readers see only rows of completed checkpoints, and a document's old version
    until the new one is whole; ``open(as_of=...)`` reads the rows as they were at a time of the
    last ``keep_s`` seconds. Only a pipeline writes it, one step with parallelism 1, and a row is
    visible up to a checkpoint interval later. Readers need not know that it was made so. See
    :mod:`sage_flink.db.snapshots`.

    A sink: a record's value is a mapping with ``vector`` (little-endian float32 bytes); its other
    entries become the row's fields. The row's id is the record's, also where the value has an
    ``id``. A delete removes rows by their fields ``doc`` and ``version``.
    """

    supports_deletes: ClassVar[bool] = True

    name: str
    dim: int
    metric: str = "cosine"
    store: str = "milvus"
    url: str = ""
    batch: BatchLimits = field(default_factory=BatchLimits)
    connection: str = ""
    full_text: bool = False
    snapshots: bool = False
    keep_s: float = 3600.0
    #: What the name stood for where the spec was made: a worker cannot look it up.
    definition: MilvusConnection | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        where = f"collection {self.name!r}"
        named = isinstance(self.name, str) and bool(NAME.fullmatch(self.name))
        rule = "letters, digits and _, at most 255, not a digit first"
        require(named, where, "name", rule, self.name, ConfigError)
        whole = isinstance(self.dim, int) and 2 <= self.dim <= DIM_MAX
        require(whole, where, "dim", f"a whole number, 2 to {DIM_MAX}", self.dim, ConfigError)
        require(self.metric == "cosine", where, "metric", "'cosine'", self.metric, ConfigError)
        for name in ("full_text", "snapshots"):
            got = getattr(self, name)
            require(isinstance(got, bool), where, name, "true or false", got, ConfigError)
        long = isinstance(self.keep_s, int | float) and self.keep_s >= KEEP_S_LEAST
        least = f"a number of seconds, at least {KEEP_S_LEAST}"
        require(long, where, "keep_s", least, self.keep_s, ConfigError)
        one_address(where, self.connection, "url", self.url)
        if self.connection:
            rule = "'milvus' with a connection"
            require(self.store == "milvus", where, "store", rule, self.store, ConfigError)
            found = named_connection(self.connection, MilvusConnection)
            object.__setattr__(self, "definition", found)

    @property
    def place(self) -> tuple[str, str, str]:
        """Where the rows are: equal for two sinks that write into the same collection."""
        if self.store != "milvus":
            return self.store, self.url, self.name
        server = self.server
        return self.store, f"{server.url}/{server.database}".rstrip("/"), self.name

    @property
    def server(self) -> MilvusConnection:
        """The connection that is named, else the one to ``url``, else the settings'."""
        return self.definition or connection_to(self.url, MilvusConnection)

    def open(self, *, create: bool = True, as_of: datetime | int | None = None) -> VectorStore:
        """The store, connected; with ``create`` the collection is created when it is absent.

        ``as_of``: its rows as they were at an event time, a datetime with a time zone or
        milliseconds; see :meth:`SnapshotReads.as_of`.

        Raises:
            NotFound: there is no such collection, and ``create`` is false.
            ConfigError: no store of that name, its package is missing, or the collection there
                has another dim, schema or metric; or with ``full_text`` the server has no BM25, or
                the collection there was made without it, or without ``snapshots`` that it needs.
            Rejected: ``as_of`` is before the oldest snapshot that is kept.
            StoreUnavailable: the server does not answer.
        """
        opened = self._connect(create)
        if not has_snapshots(opened):
            if as_of is None:
                return opened
            opened.close()
            raise ConfigError(
                f"collection {self.name!r}: as_of needs versions, and it was made without "
                "snapshots=True; use another name"
            )
        reads = SnapshotReads(opened)
        try:
            return reads if as_of is None else reads.as_of(as_of)
        except BaseException:
            reads.close()
            raise

    def _connect(self, create: bool) -> VectorStore:
        connected: VectorStore = adapter(GROUP, self.store, SHIPPED)(self, create)
        return connected

    def prepare(self) -> None:
        """Create the collection when a job that writes into it is submitted, if the store answers.

        Otherwise the first record would wait seconds for it, and checkpoints would wait with it. A
        store that does not answer does not keep the job from starting: the job waits for it.

        Raises:
            ConfigError: as :meth:`open`.
        """
        try:
            self.open().close()
        except StoreUnavailable as error:
            LOG.warning("collection %r is not created before the start: %s", self.name, error)

    def vacuum(self) -> int:
        """Remove the rows that no snapshot of the last ``keep_s`` shows; returns how many.

        The writer of the collection does so, too, while it runs.

        Raises:
            ConfigError: the collection has no snapshots; and as :meth:`open`.
        """
        rows = self._snapshot_rows(create=False)
        try:
            return rows.vacuum()
        finally:
            rows.close()

    def _snapshot_rows(self, *, create: bool) -> SnapshotRows:
        opened = self._connect(create)
        if has_snapshots(opened):
            return SnapshotRows(opened, self.dim, self.keep_s)
        opened.close()
        raise ConfigError(f"collection {self.name!r}: it was made without snapshots=True")

    def writer(self) -> RowWriter | SnapshotWriter:
        """Open the collection for writing; raises as :meth:`open` does.

        Each start of a job makes an absent collection. One that is dropped while the job runs fails
        a write with NotFound, and with it the job once: waiting for it would never end, and to make
        it again in silence would hide that its rows are lost.
        """
        if self.snapshots:
            return SnapshotWriter(self._snapshot_rows(create=True), self.dim)
        opened = self._connect(create=True)
        if has_snapshots(opened):
            opened.close()
            raise ConfigError(
                f"collection {self.name!r}: it was made with snapshots=True; write to it by "
                "collection(..., snapshots=True)"
            )
        return RowWriter(opened, self.dim)


def has_snapshots(store: VectorStore) -> bool:
    """Whether the rows of a connected store are those of several snapshots."""
    return getattr(store, "snapshots", False) is True


def collection(
    name: str,
    *,
    dim: int,
    store: str = "milvus",
    url: str = "",
    batch: BatchLimits | None = None,
    connection: str = "",
    full_text: bool = False,
    snapshots: bool = False,
    keep_s: float = 3600.0,
) -> Collection:
    """The collection ``name`` of vectors with ``dim`` numbers, compared by cosine; see Collection.

    >>> collection("docs", dim=384).batch.items_max
    500
    """
    limits = batch or BatchLimits()
    return Collection(
        name,
        dim,
        store=store,
        url=url,
        batch=limits,
        connection=connection,
        full_text=full_text,
        snapshots=snapshots,
        keep_s=keep_s,
    )

"""A collection of a vector store as a value: a sink, and how a record becomes a row.

The store is found by its name: an entry point of the group ``sage.db`` that takes the Collection
and returns an open VectorStore.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from sage_flink.common.adapters import adapter
from sage_flink.common.connections import MilvusConnection
from sage_flink.common.connections_file import connection_to, named_connection, one_address
from sage_flink.common.errors import ConfigError, Rejected, StoreUnavailable
from sage_flink.common.records import Record
from sage_flink.common.validation import require
from sage_flink.db.vector_store import RowDelete, VectorRow, VectorStore
from sage_flink.db.vectors import flaw
from sage_flink.db.write_groups import write_groups
from sage_flink.flow.ports import BatchLimits, Refusal

LOG = logging.getLogger("sage.db")
GROUP = "sage.db"
#: The stores that come with sage, for a checkout that is on the path but not installed.
SHIPPED = {
    "memory": "sage_flink.db.memory:MemoryVectorStore",
    "milvus": "sage_connectors.milvus:MilvusStore",
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
DIM_MAX = 32_768


@dataclass(frozen=True, slots=True)
class Collection:
    """Rows with a vector of ``dim`` float32 each, in ``store``.

    The store is reached by a ``connection`` by its name, or at a ``url`` that needs no login
    (empty: the settings').

    With ``full_text`` rows are found by the words of their field ``text`` too, by BM25. It needs
    Milvus 2.5 or later, or milvus-lite. A collection that was made with it can be opened without,
    and is searched by words all the same.

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
        flag = isinstance(self.full_text, bool)
        require(flag, where, "full_text", "true or false", self.full_text, ConfigError)
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

    def open(self, *, create: bool = True) -> VectorStore:
        """The store, connected; with ``create`` the collection is created when it is absent.

        Raises:
            NotFound: there is no such collection, and ``create`` is false.
            ConfigError: no store of that name, its package is missing, or the collection there
                has another dim, schema or metric; or with ``full_text`` the server has no BM25, or
                the collection there was made without it.
            StoreUnavailable: the server does not answer.
        """
        opened: VectorStore = adapter(GROUP, self.store, SHIPPED)(self, create)
        return opened

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

    def writer(self) -> "RowWriter":
        """Open the collection for writing; raises as :meth:`open` does.

        Each start of a job makes an absent collection. One that is dropped while the job runs fails
        a write with NotFound, and with it the job once: waiting for it would never end, and to make
        it again in silence would hide that its rows are lost.
        """
        return RowWriter(self.open(), self.dim)


def collection(
    name: str,
    *,
    dim: int,
    store: str = "milvus",
    url: str = "",
    batch: BatchLimits | None = None,
    connection: str = "",
    full_text: bool = False,
) -> Collection:
    """The collection ``name`` of vectors with ``dim`` numbers, compared by cosine; see Collection.

    >>> collection("docs", dim=384).batch.items_max
    500
    """
    limits = batch or BatchLimits()
    return Collection(
        name, dim, store=store, url=url, batch=limits, connection=connection, full_text=full_text
    )


class RowWriter:
    """Writes records into a vector store, idempotent by record id, in their order.

    Stores new rows before it deletes old ones, so that a search finds rows of a document also while
    it is updated.
    """

    def __init__(self, store: VectorStore, dim: int) -> None:
        self.store, self.dim = store, dim

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        """Apply the records; upserts without a fitting vector, or refused by the store, come back.

        A delete is never refused: of a document whose name does not fit, the store has no rows.

        Raises:
            StoreUnavailable: no record is known to be applied; the same call may succeed later.
        """
        refused: list[Refusal] = []
        for group in write_groups(records):
            refused += self._upsert(group.upserts)
            if group.deletes:
                self.store.delete([RowDelete(*item) for item in group.deletes.items()])
        return refused

    def _upsert(self, records: Sequence[Record]) -> Sequence[Refusal]:
        rows: list[VectorRow] = []
        refused: list[Refusal] = []
        for record in records:
            try:
                rows.append(row_of(record, self.dim))
            except Rejected as verdict:
                refused.append(Refusal(record, str(verdict)))
        reasons = dict(self.store.upsert(rows)) if rows else {}
        flawed = {id(refusal.record) for refusal in refused}
        refused += [
            Refusal(record, reasons[record.id])
            for record in records
            if record.id in reasons and id(record) not in flawed
        ]
        return refused

    def close(self) -> None:
        """Close the store; no write is pending."""
        self.store.close()


def row_of(record: Record, dim: int) -> VectorRow:
    """The row of an upsert.

    Raises:
        Rejected: its value is not a mapping, or has no vector of ``dim`` finite float32.
    """
    if not isinstance(record.value, Mapping):
        got = type(record.value).__name__
        raise Rejected(f"value must be a mapping with 'vector', got {got}")
    vector = record.value.get("vector")
    if not isinstance(vector, bytes):
        raise Rejected(f"value['vector'] must be float32 bytes, got {type(vector).__name__}")
    if reason := flaw(vector, dim=dim):
        raise Rejected(reason)
    fields = {k: v for k, v in record.value.items() if k not in {"id", "vector"}}
    return VectorRow(record.id, vector, fields)

"""The collections of a Milvus server: what there is, without opening one to write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sage_connectors.milvus_collection import REQUEST
from sage_connectors.milvus_connection import check, open_client
from sage_connectors.milvus_filters import expression
from sage_connectors.milvus_schema import has_epochs, type_name
from sage_flink.common.connections import MilvusConnection
from sage_flink.common.errors import ConfigError, NotFound
from sage_flink.db.filters import RowFilter
from sage_flink.db.snapshots import HIDDEN, WROTE, markers_since, other_versions, visible

#: Markers in one answer.
MARKERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class CollectionSummary:
    """A collection: ``fields`` with their types, ``rows`` unless it is not loaded.

    Of a collection with snapshots ``rows`` are those of the newest one, and ``other_versions`` the
    rows that it does not show: older versions that are kept, and rows that await a checkpoint.
    """

    name: str
    rows: int | None
    other_versions: int | None
    dim: int
    metric: str
    index: str
    loaded: bool
    dynamic: bool
    fields: Mapping[str, str]
    aliases: tuple[str, ...]


class MilvusServer:
    """A connection to the server; close it, or use it in a with statement.

    Raises:
        ConfigError: the server refuses a setting of the connection.
        StoreUnavailable: the server does not answer; each method too.
    """

    def __init__(self, server: MilvusConnection) -> None:
        self.server, self.client = server, open_client(server)

    def __enter__(self) -> "MilvusServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def names(self) -> list[str]:
        """The names of all collections."""
        found = check(self.server, partial(self.client.list_collections, **REQUEST))
        return sorted(found)

    def summary(self, name: str) -> CollectionSummary:
        """What a collection is.

        Raises:
            NotFound: there is no such collection; the message lists those that exist.
        """
        return check(self.server, lambda: self._summary(self._require_known(name)))

    def drop(self, name: str) -> None:
        """Delete a collection with all its rows.

        Raises:
            NotFound: there is no such collection.
        """
        check(
            self.server, partial(self.client.drop_collection, self._require_name(name), **REQUEST)
        )

    def rename(self, name: str, to: str) -> None:
        """Give a collection another name; its rows and aliases stay.

        Raises:
            NotFound: there is no such collection.
            ConfigError: ``to`` is the name of another collection, or an alias.
        """
        self._require_name(name)
        self._require_free(to)
        check(self.server, partial(self.client.rename_collection, name, to, **REQUEST))

    def set_alias(self, alias: str, name: str) -> str:
        """Make ``alias`` a name of a collection, from one request to the next where it moves.

        Returns the collection that it named before, empty if it is new.

        Raises:
            NotFound: there is no such collection.
            ConfigError: ``alias`` is the name of a collection.
        """
        name = self.summary(name).name
        before = self._alias_target(alias)
        change = self.client.alter_alias if before else self.client.create_alias
        check(self.server, partial(change, name, alias, **REQUEST))
        return before

    def drop_alias(self, alias: str) -> None:
        """Remove an alias; the collection stays.

        Raises:
            NotFound: there is no such alias.
        """
        if not self._alias_target(alias):
            raise NotFound(
                f"no alias {alias!r} at {self.server.url}; `sage db describe` lists them"
            )
        check(self.server, partial(self.client.drop_alias, alias, **REQUEST))

    def _alias_target(self, alias: str) -> str:
        """The collection of an alias; empty for none."""
        if not check(self.server, partial(self.client.has_collection, alias, **REQUEST)):
            return ""
        if alias in self.names():
            raise ConfigError(f"{alias!r} is a collection at {self.server.url}, not an alias")
        about = check(self.server, partial(self.client.describe_collection, alias, **REQUEST))
        return str(about["collection_name"])

    def _require_free(self, name: str) -> None:
        if target := self._alias_target(name):
            raise ConfigError(f"{name!r} is an alias of {target} at {self.server.url}")

    def _require_known(self, name: str) -> str:
        """The name, if it is that of a collection or an alias."""
        is_known = self.client.has_collection(name, **REQUEST)
        return name if is_known else self._require_name(name)

    def _require_name(self, name: str) -> str:
        """The name, if it is that of a collection; an alias is neither dropped nor renamed so."""
        names = self.names()
        if name not in names:
            there = ", ".join(names) or "none"
            raise NotFound(f"no collection {name!r} at {self.server.url}; there are: {there}")
        return name

    def _summary(self, name: str) -> CollectionSummary:
        about = self.client.describe_collection(name, **REQUEST)
        fields = {field["name"]: field for field in about["fields"]}
        vectors = [f for f in fields.values() if "dim" in f.get("params", {})]
        indexed = self.client.list_indexes(name, **REQUEST)
        index: Mapping[str, Any] = {}
        for field in vectors:
            if field["name"] in indexed:
                index = self.client.describe_index(name, field["name"], **REQUEST)
        state = self.client.get_load_state(name, timeout=REQUEST["timeout"])["state"]
        loaded = state.name == "Loaded"
        shown, others = self._counts(name, snapshots=has_epochs(about)) if loaded else (None, None)
        return CollectionSummary(
            name=str(about["collection_name"]),
            rows=shown,
            other_versions=others,
            dim=next((int(field["params"]["dim"]) for field in vectors), 0),
            metric=str(index.get("metric_type", "")).lower(),
            index=str(index.get("index_type", "")),
            loaded=loaded,
            dynamic=bool(about.get("enable_dynamic_field")),
            fields={name: type_name(field) for name, field in fields.items()},
            aliases=tuple(about.get("aliases", ())),
        )

    def _counts(self, name: str, *, snapshots: bool) -> tuple[int, int | None]:
        """The rows that a reader sees, and of a collection with snapshots how many others."""
        if not snapshots:
            return self._count(name), None
        epoch = self._newest_epoch(name)
        return self._count(name, visible(epoch)), self._count(name, other_versions(epoch))

    def _newest_epoch(self, name: str) -> int:
        """The epoch of the newest marker; 0 for none."""
        epoch = 0
        while found := self._query(name, markers_since(epoch + 1), WROTE, limit=MARKERS_MAX):
            epoch = max(row[WROTE] for row in found)
        return epoch

    def _count(self, name: str, where: RowFilter | None = None) -> int:
        """How many rows there are; the server's statistics leave out those it still writes."""
        return int(self._query(name, where, "count(*)")[0]["count(*)"])

    def _query(
        self, name: str, where: RowFilter | None, field: str, **limit: int
    ) -> Sequence[Mapping[str, Any]]:
        """The ``field`` of the rows that match, with every write acknowledged before."""
        found: Sequence[Mapping[str, Any]] = self.client.query(
            name,
            filter="" if where is None else expression(where, HIDDEN),
            output_fields=[field],
            consistency_level="Strong",
            **limit,
            **REQUEST,
        )
        return found

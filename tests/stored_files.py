"""Vector stores and files as their tables have them."""

from dataclasses import replace
from typing import Any

from sage_gateway.vector_stores.schema import (
    FileChunking,
    FileStatus,
    VectorStoreFile,
    VectorStoreObject,
    Windows,
)
from sage_gateway.vector_stores.store_records import OwnedFile, OwnedStore, PendingDelete
from sage_gateway.vector_stores.store_tables import StoreTables

CHUNKING = FileChunking(static=Windows(max_chunk_size_tokens=800, chunk_overlap_tokens=400))


def add_store(tables: StoreTables, id_: str = "vs_1", tenant: str = "acme", **more: Any) -> None:
    fields: dict[str, Any] = {"name": "", "description": None, "metadata": {}}
    fields |= {"created_at": 1000, "last_active_at": 1000, "expires_after": None, **more}
    owned = OwnedStore(tenant, "vectors", 4, VectorStoreObject(id=id_, **fields))
    assert tables.add_store(owned, stores_max=3)


def file_of(id_: str = "file-1", store: str = "vs_1", version: str = "v1") -> OwnedFile:
    file = VectorStoreFile(
        id=id_, created_at=1000, vector_store_id=store, chunking_strategy=CHUNKING, attributes={}
    )
    return OwnedFile("acme", "key-1", version, None, file)


def finished(owned: OwnedFile, status: FileStatus, **changes: Any) -> OwnedFile:
    return replace(owned, file=owned.file.model_copy(update={"status": status, **changes}))


def pending_deletes(tables: StoreTables) -> list[tuple[str, str, str]]:
    """Store, file and version kept, in their order."""
    found: list[PendingDelete] = []
    while (one := tables.next_pending_delete(found[-1].seq if found else 0)) is not None:
        found.append(one)
    return [(one.store, one.file, one.kept_version) for one in found]

"""Queries of the batches of files.

A batch is added in one transaction, so a crash leaves all of its files in progress or none. The id
of a batch is the ``version`` of its files: one that is detached, or attached again, is not among
them any more. Files are cancelled as they fail: no row of them stays.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sage_gateway.vector_stores.schema import FileCounts, FileStatus, VectorStoreFileBatch
from sage_gateway.vector_stores.store_records import OwnedFile
from sage_gateway.vector_stores.store_tables import IN_PROGRESS, StoreTables

#: Of one store; the oldest of more are forgotten, except those in progress.
BATCHES_KEPT = 1_000


def add_batch(tables: StoreTables, batch_id: str, files: Sequence[OwnedFile]) -> bool:
    """Add a batch with its files in progress; False without their store."""
    first = files[0]
    store_id = first.file.vector_store_id
    with tables.transaction() as db:
        if not tables.insert_files(first.tenant, store_id, files):
            return False
        insert = "INSERT INTO file_batches (id, store, created_at) VALUES (?,?,?)"
        db.execute(insert, (batch_id, store_id, first.file.created_at))
        newest = "SELECT seq FROM file_batches WHERE store = ? ORDER BY seq DESC LIMIT 1 OFFSET ?"
        open_files = f"SELECT 1 FROM attachments WHERE version = file_batches.id AND {IN_PROGRESS}"  # noqa: S608
        db.execute(
            f"DELETE FROM file_batches WHERE store = ? AND seq <= ({newest})"  # noqa: S608
            f" AND NOT EXISTS ({open_files})",
            (store_id, store_id, BATCHES_KEPT),
        )
    return True


def find_batch(tables: StoreTables, store_id: str, batch_id: str) -> VectorStoreFileBatch | None:
    """The batch of that id in a store, with its current counts."""
    with tables.transaction() as db:
        query = "SELECT created_at, cancelled FROM file_batches WHERE id = ? AND store = ?"
        found = db.execute(query, (batch_id, store_id)).fetchone()
        if found is None:
            return None
        query = "SELECT status, count(*) FROM attachments WHERE version = ? GROUP BY status"
        counts = Counter(dict(db.execute(query, (batch_id,)).fetchall()))
    created_at, cancelled = found
    return VectorStoreFileBatch(
        id=batch_id,
        created_at=created_at,
        vector_store_id=store_id,
        status=batch_status(counts, is_cancelled=bool(cancelled)),
        file_counts=FileCounts(**counts, total=counts.total()),
    )


def batch_status(counts: Counter[str], *, is_cancelled: bool) -> FileStatus:
    """The state of a batch with this many files in each state."""
    if counts[FileStatus.IN_PROGRESS]:
        return FileStatus.IN_PROGRESS
    if is_cancelled:
        return FileStatus.CANCELLED
    all_failed = 0 < counts[FileStatus.FAILED] == counts.total()
    return FileStatus.FAILED if all_failed else FileStatus.COMPLETED


def cancel_batch(tables: StoreTables, store_id: str, batch_id: str) -> list[OwnedFile]:
    """Cancel the files of a batch that are in progress, and return them."""
    where = f"store = ? AND version = ? AND {IN_PROGRESS}"
    with tables.transaction() as db:
        files = tables.owned_files(where, [store_id, batch_id])
        for owned in files:
            file = owned.file.model_copy(update={"status": FileStatus.CANCELLED})
            tables.end_file(replace(owned, file=file))
        if files:
            db.execute("UPDATE file_batches SET cancelled = 1 WHERE id = ?", (batch_id,))
    return files

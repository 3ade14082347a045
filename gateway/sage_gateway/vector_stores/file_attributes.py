"""Changes of the attributes of files: saved first, then written to the rows.

Of a file in progress the rows are changed after its end, so that it has one writer at a time.
"""

from sage_gateway.vector_stores.schema import Attributes, VectorStoreFile
from sage_gateway.vector_stores.store_records import PendingAttributes
from sage_gateway.vector_stores.store_tables import IN_PROGRESS, StoreTables, attachment_id


def change_attributes(
    tables: StoreTables, store_id: str, file_id: str, attributes: Attributes
) -> VectorStoreFile | None:
    """The file with these attributes, which its rows are to have too; None without the file."""
    id_ = attachment_id(store_id, file_id)
    with tables.transaction() as db:
        found = tables.file(store_id, file_id)
        if found is None:
            return None
        changed = found.file.model_copy(update={"attributes": attributes})
        page = changed.model_dump_json()
        db.execute("UPDATE attachments SET page = ? WHERE id = ?", (page, id_))
        db.execute("INSERT OR REPLACE INTO pending_attributes (attachment) VALUES (?)", (id_,))
    return changed


def next_pending_attributes(tables: StoreTables, after: int) -> PendingAttributes | None:
    """The change that follows the one numbered ``after``, of a file that has ended."""
    with tables.transaction() as db:
        query = (
            "SELECT pending.seq, stores.dim, files.version, files.page"  # noqa: S608
            " FROM pending_attributes AS pending"
            " JOIN attachments AS files ON files.id = pending.attachment"
            " JOIN stores ON stores.id = files.store"
            f" WHERE pending.seq > ? AND NOT {IN_PROGRESS} ORDER BY pending.seq LIMIT 1"
        )
        row = db.execute(query, (after,)).fetchone()
    if row is None:
        return None
    seq, dim, version, page = row
    file = VectorStoreFile.model_validate_json(page)
    return PendingAttributes(seq, file.vector_store_id, dim, file.id, version, file.attributes)


def end_pending_attributes(tables: StoreTables, seq: int) -> None:
    """Forget a change: the rows have the attributes. A later change of the file has its own."""
    with tables.transaction() as db:
        db.execute("DELETE FROM pending_attributes WHERE seq = ?", (seq,))

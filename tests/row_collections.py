"""Collections of vector stores without Milvus: in this process, or in files that outlive it."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sage_flink import db
from sage_flink.common import NotFound
from sage_flink.db import RefusedRow, RowDelete, RowFilter, SearchHit, VectorRow, memory

#: One token a word, so that the size of chunks is plain.
TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
}


def write_tokenizer(models: Path) -> None:
    """Put the tokenizer ``minilm`` into the folder of models."""
    folder = models / "minilm"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))


class MemoryCollections:
    """Collections of this process."""

    def open(self, name: str, dim: int, *, create: bool) -> db.VectorStore:
        return db.collection(name, dim=dim, store="memory").open(create=create)

    def drop(self, name: str) -> None:
        self.open(name, 4, create=False)
        memory.forget(name)

    def rows(self, name: str) -> list[VectorRow]:
        """All rows; an empty list without such a collection."""
        try:
            return list(self.open(name, 4, create=False).scan())
        except NotFound:
            return []


def open_in_memory(name: str, dim: int) -> Any:
    """The collection for a search."""
    return MemoryCollections().open(name, dim, create=False)


class FileCollections:
    """Collections in SQLite files of ``folder``: what is acknowledged survives a kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, name: str, dim: int, *, create: bool = False) -> "FileRows":
        path = self.folder / f"{name}.rows"
        if not create and not path.exists():
            raise NotFound(f"no collection {name!r}")
        return FileRows(path)

    def drop(self, name: str) -> None:
        self.open(name, 4)
        (self.folder / f"{name}.rows").unlink()


class FileRows:
    """A collection in a file; a search compares every row."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS rows"
            " (id TEXT PRIMARY KEY, doc TEXT, version TEXT, vector BLOB, fields TEXT)"
        )

    def upsert(self, rows: Sequence[VectorRow]) -> Sequence[RefusedRow]:
        for row in rows:
            values = (row.id, row.fields["doc"], row.fields["version"], row.vector)
            insert = "INSERT OR REPLACE INTO rows VALUES (?,?,?,?,?)"
            self._db.execute(insert, (*values, json.dumps(row.fields)))
        return ()

    def delete(self, deletes: Sequence[RowDelete]) -> None:
        for one in deletes:
            query = "DELETE FROM rows WHERE doc = ? AND version != ?"
            self._db.execute(query, (one.document, one.version))

    def scan(self, where: RowFilter | None = None, *, vectors: bool = True) -> Iterator[VectorRow]:
        found = self._db.execute("SELECT id, vector, fields FROM rows ORDER BY id").fetchall()
        for id_, data, text in found:
            fields = json.loads(text)
            if where is None or where.matches(fields | {"id": id_}):
                yield VectorRow(id_, data if vectors else b"", fields)

    def search(
        self,
        vector: Sequence[float],
        top_k: int,
        *,
        where: RowFilter | None = None,
        min_score: float | None = None,
        offset: int = 0,
        group_by: str = "",
    ) -> list[SearchHit]:
        copy = db.collection("copy", dim=len(vector), store="memory").open()
        try:
            copy.upsert(list(self.scan()))
            page: Any = {"offset": offset, "group_by": group_by}
            return copy.search(vector, top_k, where=where, min_score=min_score, **page)
        finally:
            memory.forget("copy")

    def close(self) -> None:
        self._db.close()

"""Rows of a collection as a file: Parquet or JSON lines, written whole or not at all.

A line of ``.jsonl`` is the row's fields with ``id`` and ``vector``, a list of numbers. ``.parquet``
has the columns ``id``, ``vector``, ``text``, ``doc`` and ``version``, and ``fields``, the rest as
JSON. Files of other programs are read too: a column of another name is a field.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from sage_connectors.whole_files import by_ending, write_whole
from sage_flink.common.errors import ConfigError
from sage_flink.db.vector_store import VectorRow

BATCH_ROWS = 500
COLUMNS = ("text", "doc", "version")


def write_rows(file: Path, rows: Iterable[VectorRow]) -> int:
    """Write the rows, and return how many; the file appears when all are written.

    Raises:
        ConfigError: the name ends neither with .parquet nor with .jsonl, or cannot be written.
    """
    write = by_ending(file, {".parquet": _write_parquet, ".jsonl": _write_lines})
    return write_whole(file, lambda part: write(part, rows))


def read_batches(file: Path) -> Iterator[list[VectorRow]]:
    """The rows, 500 at a time.

    Raises:
        ConfigError: there is no such file, or a row has no id and vector; the message has its line.
    """
    read = by_ending(file, {".parquet": _read_parquet, ".jsonl": _read_lines})
    try:
        with file.open("rb") as source:
            for items in _batches(enumerate(read(source), 1)):
                yield [_row(item, f"{file}, row {number}") for number, item in items]
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error


def _write_lines(part: Path, rows: Iterable[VectorRow]) -> int:
    written = 0
    with part.open("wb") as target:
        for row in rows:
            line = {"id": row.id, "vector": np.frombuffer(row.vector, "<f4").tolist()} | row.fields
            target.write(orjson.dumps(line) + b"\n")
            written += 1
    return written


def _write_parquet(part: Path, rows: Iterable[VectorRow]) -> int:
    import pyarrow as arrow
    from pyarrow import parquet

    texts = [(name, arrow.string()) for name in ("id", *COLUMNS, "fields")]
    schema = arrow.schema([*texts, ("vector", arrow.list_(arrow.float32()))])
    written = 0
    with parquet.ParquetWriter(part, schema) as writer:
        for batch in _batches(rows):
            writer.write_table(arrow.Table.from_pylist(list(map(_columns, batch)), schema))
            written += len(batch)
    return written


def _columns(row: VectorRow) -> dict[str, Any]:
    """A field that is no text, and so does not fit its column, stays with the rest."""
    own = {k: v for k, v in row.fields.items() if k in COLUMNS and isinstance(v, str)}
    rest = {k: v for k, v in row.fields.items() if k not in own}
    vector = np.frombuffer(row.vector, "<f4")
    return {"id": row.id, "vector": vector, "fields": orjson.dumps(rest).decode()} | own


def _read_lines(source: BinaryIO) -> Iterator[Any]:
    for line in source:
        if line.strip():
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield error


def _read_parquet(source: BinaryIO) -> Iterator[Any]:
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(source).iter_batches(BATCH_ROWS):
            for item in batch.to_pylist():
                fields = item.pop("fields", None)
                fields = orjson.loads(fields) if isinstance(fields, str) else fields or {}
                found = {k: v for k, v in item.items() if v is not None}
                yield found | fields if isinstance(fields, dict) else "fields must be an object"
    except (arrow.ArrowInvalid, orjson.JSONDecodeError) as error:
        yield error


def _row(item: Any, where: str) -> VectorRow:
    if not isinstance(item, dict):
        raise ConfigError(f"{where}: it is no row: {item}")
    id_, vector = item.pop("id", None), item.pop("vector", None)
    if not isinstance(id_, str):
        raise ConfigError(f"{where}: id must be text, got {id_!r:.100}")
    try:
        numbers = np.asarray(vector, "<f4")
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: vector must be a list of numbers: {error}") from error
    if numbers.ndim != 1:
        raise ConfigError(f"{where}: vector must be a list of numbers, got {vector!r:.100}")
    return VectorRow(id_, numbers.tobytes(), item)


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(items)
    while batch := list(itertools.islice(left, BATCH_ROWS)):
        yield batch

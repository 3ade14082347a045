"""A folder of files as a sink: JSON lines, or Parquet; one row per record.

========================  ==========================  =================================
row                       JSON                        Parquet
========================  ==========================  =================================
``id``                    text                        string
``key``                   text; base64 where it is    binary
                          not in UTF-8; or null
``timestamp_ms``          number                      int64
``value``                 the value; bytes in base64  the value's JSON as a string
========================  ==========================  =================================

A value that JSON cannot hold is a dead letter. A file appears in the folder whole, under a name
that no other rows get; until it is complete its name starts with a dot, so that a pattern such as
``part-*`` leaves it out. A sink adds files and deletes none.
"""

import os
import uuid
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from sage_connectors.formats.plain_json import dump
from sage_flink.common.errors import ConfigError, Rejected, StoreUnavailable
from sage_flink.common.records import Record, encode_many
from sage_flink.common.validation import require
from sage_flink.flow.formats import Encoder
from sage_flink.flow.ports import BatchLimits, Refusal, Writer

FilesFormat = Literal["json", "parquet"]
SUFFIX_JSON, SUFFIX_PARQUET = ".jsonl", ".parquet"


@dataclass(frozen=True, slots=True)
class JsonRows:
    """The format of :class:`JsonFiles`: a record as one line of JSON.

    >>> JsonRows().encoder("")(Record("t/0/7", {"n": 1}, 5, b"anna"))
    b'{"id":"t/0/7","key":"anna","timestamp_ms":5,"value":{"n":1}}'
    """

    encodes_deletes: ClassVar[bool] = False

    def encoder(self, topic: str) -> Encoder:
        """Records into lines, without the line feed."""
        return _line


@dataclass(frozen=True, slots=True)
class JsonFiles:
    """Files ``part-*.jsonl`` in ``folder``, which is created; a line for each record.

    On Flink exactly once, by Flink's own FileSink: the rows between two checkpoints of a subtask
    are one file, which gets its name when the second one is complete; ``folder`` may be a URI of a
    file system that Flink knows, and every TaskManager must see it. A job that is killed leaves
    hidden files of its last, incomplete checkpoint behind; they can be deleted. In process one file
    of each run, which gets its name at the end of the run, also where that failed.

    Without a ``format`` the values must be lines already: bytes or text.
    """

    folder: str
    format: JsonRows | None = field(default_factory=JsonRows)

    def __post_init__(self) -> None:
        _require_folder(self.folder)

    @property
    def messages(self) -> "JsonFiles":
        """The same files of values that are lines already."""
        return replace(self, format=None)

    @property
    def batch(self) -> BatchLimits:
        """The limits in process; on Flink the checkpoint ends a file."""
        return BatchLimits()

    def prepare(self) -> None:
        """Create the folder.

        Raises:
            ConfigError: it cannot be created, or is a file.
        """
        if "://" not in self.folder:
            _local_folder(self.folder)

    def flink_sink(self, jvm: Any, *, transaction_prefix: str) -> Any:
        """The Java ``FileSink<byte[]>`` of encoded records."""
        folder = self.folder if "://" in self.folder else str(Path(self.folder).absolute())
        return jvm.org.sage.flink.connector.LineFiles.sink(folder, SUFFIX_JSON)

    def writer(self) -> Writer:
        """Open one file of this run.

        Raises:
            ConfigError: the folder cannot be created.
        """
        return _LineWriter(_local_folder(self.folder) / f"part-{uuid.uuid4()}-0{SUFFIX_JSON}")


@dataclass(frozen=True, slots=True)
class ParquetFiles:
    """Files ``part-*.parquet`` in ``folder``, which is created; a file for each batch.

    A file's name is the hash of its records, so a batch that is written again replaces itself. On
    Flink that is at least once: after a restart the records since the last checkpoint come in
    other batches, and some of them are in two files, with the same ``id``: read them with ``SELECT
    DISTINCT ON (id)``. With no restart, and in process, each record is in one file. Exactly once is
    :class:`JsonFiles`.

    A batch has up to 50,000 records and waits 10 s for them; put ``.batch(...)`` before the sink
    for other sizes. Every TaskManager must see the folder.
    """

    folder: str
    batch: BatchLimits = field(
        default_factory=lambda: BatchLimits(50_000, bytes_max=64_000_000, linger_s=10.0)
    )

    def __post_init__(self) -> None:
        _require_folder(self.folder)
        local = "://" not in self.folder
        required = "a path: Python writes Parquet, to a file system that is mounted"
        require(
            local, f"parquet files {self.folder!r}", "folder", required, self.folder, ConfigError
        )

    def writer(self) -> Writer:
        """A writer of whole files.

        Raises:
            ConfigError: the folder cannot be created.
        """
        return _ParquetWriter(_local_folder(self.folder))


def files_sink(folder: str | Path, *, format: FilesFormat = "json") -> JsonFiles | ParquetFiles:  # noqa: A002
    """The folder as a sink: JSON lines, exactly once on Flink; or Parquet, at least once.

    >>> files_sink("/data/out")
    JsonFiles(folder='/data/out', format=JsonRows())

    Raises:
        ConfigError: the format is another one.
    """
    formats = get_args(FilesFormat)
    known = f"one of {', '.join(formats)}"
    require(format in formats, f"files_sink {folder!s:.200}", "format", known, format, ConfigError)
    return JsonFiles(str(folder)) if format == "json" else ParquetFiles(str(folder))


def _line(record: Record) -> bytes:
    row = {"id": record.id, "key": _key_text(record.key), "timestamp_ms": record.timestamp_ms}
    return dump({**row, "value": record.value})


def _key_text(key: bytes | None) -> str | None:
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return b64encode(key).decode()


class _LineWriter:
    """Appends lines to a hidden file, which gets its name at the end."""

    def __init__(self, path: Path) -> None:
        self._path, self._pending = path, _hidden_path(path)
        self._file = self._pending.open("wb", buffering=0)

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        """Append the values of the records, each with a line feed."""
        refused = [
            Refusal(record, f"the line must be bytes or text, got {type(record.value).__name__}")
            for record in records
            if not isinstance(record.value, bytes | str)
        ]
        lost = {id(refusal.record) for refusal in refused}
        lines = (record.value for record in records if id(record) not in lost)
        encoded = (line.encode() if isinstance(line, str) else line for line in lines)
        end = self._file.tell()
        try:
            rest = memoryview(b"".join(line + b"\n" for line in encoded))
            while rest:  # a disk that is nearly full takes a part of it, without an error
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.truncate(end)  # no half of a line
            raise StoreUnavailable(f"files sink: cannot write {self._path}: {error}") from error
        return refused

    def close(self) -> None:
        """Give the file its name; a file without a row is deleted."""
        self._file.close()
        if self._pending.stat().st_size:
            self._pending.rename(self._path)
        else:
            self._pending.unlink()


class _ParquetWriter:
    """Writes a whole file for each batch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        """Write the batch to its file, durably; a batch that is there already replaces itself."""
        rows, refused = [], []
        for record in records:
            try:
                rows.append((record, dump(record.value).decode()))
            except Rejected as flaw:
                refused.append(Refusal(record, str(flaw)))
        if rows:
            stored = [record for record, _ in rows]
            name = blake2b(encode_many(stored), digest_size=16).hexdigest()
            self._publish(rows, self._folder / f"part-{name}{SUFFIX_PARQUET}")
        return refused

    def _publish(self, rows: Sequence[tuple[Record, str]], path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        records = [record for record, _ in rows]
        table = pa.table(
            {
                "id": pa.array([record.id for record in records], pa.string()),
                "key": pa.array([record.key for record in records], pa.binary()),
                "timestamp_ms": pa.array([record.timestamp_ms for record in records], pa.int64()),
                "value": pa.array([text for _, text in rows], pa.string()),
            }
        )
        pending = _hidden_path(path)
        try:
            with pending.open("wb") as file:
                parquet.write_table(table, file)
                file.flush()
                os.fsync(file.fileno())
            pending.replace(path)
        except OSError as error:
            pending.unlink(missing_ok=True)
            raise StoreUnavailable(f"files sink: cannot write {path}: {error}") from error

    def close(self) -> None:
        """Has no effect: each write closes its file."""


def _hidden_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4()}")


def _require_folder(folder: Any) -> None:
    known = isinstance(folder, str) and bool(folder)
    require(known, "files sink", "folder", "a path, such as '/data/out'", folder, ConfigError)


def _local_folder(folder: str) -> Path:
    path = Path(folder).absolute()
    if "://" in folder:
        raise ConfigError(f"files sink: {folder!r} is written by Flink only; give a path here")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"files sink: folder {str(path)!r} cannot be created: {error}") from error
    return path

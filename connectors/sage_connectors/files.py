"""A folder of files as a source: one record per file, read in this process or by Flink.

Both read the same files in the same order with the same ids, and never fail on a file: one that is
too large or cannot be read has value None and a header with the reason.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_connectors.documents import documents
from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.common.records import Record

#: The largest file that is read, 64 MiB; the same limit as in the Java source.
FILE_BYTES_MAX = 64 << 20
SUFFIXES = (".txt", ".md", ".html", ".jsonl", ".pdf")


@dataclass(frozen=True, slots=True)
class Files:
    """The files below ``folder`` with one of the suffixes, in any letter case; all if ``()``.

    Hidden ones (a name that starts with ``.`` or ``_``, or below such a folder) are left out. A
    record's id and origin are the path relative to ``folder``, its value the bytes, its time the
    modification time; header ``path`` is the full path; a file without a value has a header
    ``oversize`` (bytes) or ``unreadable`` (why), such as a link that leads nowhere, a folder that
    may not be listed, or a name that is not UTF-8. A file is read once, whatever links lead to it.
    Bounded: the files at the start of the run.
    """

    folder: str
    suffixes: tuple[str, ...] = SUFFIXES
    recursive: bool = True

    def __post_init__(self) -> None:
        if not self.folder:
            raise ConfigError("files: folder must be a path, got ''")
        if isinstance(self.suffixes, str) or not all(s.startswith(".") for s in self.suffixes):
            raise ConfigError(
                f"files {self.folder!r}: suffixes must be a tuple like ('.md', '.txt'), "
                f"got {self.suffixes!r}"
            )

    def records(self) -> Iterable[Record]:
        """One record a file, in order of the paths.

        Raises:
            ConfigError: there is no such folder.
        """
        root = Path(self.folder).absolute()
        if not root.exists():
            raise ConfigError(f"files: folder must exist, got {str(root)!r}")
        if root.is_file():
            return iter([_record(root, root.name)])
        found = self._below(root, set())
        return (_record(path, path.relative_to(root).as_posix()) for path in found)

    def flink_source(self, jvm: Any) -> Any:
        """The Java ``FileSource<byte[]>``; every TaskManager must see the folder."""
        root = str(Path(self.folder).absolute())
        native = jvm.org.sage.flink.connector.WholeFileFormat
        return native.source(root, list(self.suffixes), self.recursive)

    def _below(self, folder: Path, seen: set[str]) -> Iterator[Path]:
        """The files, each once; what cannot be listed is one of them. ``seen``: without links."""
        if _is_known(folder, seen):
            return
        wanted = tuple(suffix.lower() for suffix in self.suffixes)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield folder
            return
        for entry in entries:
            if entry.name.startswith((".", "_")):
                continue
            path = Path(entry.path)
            if _is_folder(entry):
                if self.recursive:
                    yield from self._below(path, seen)
            elif _ends_with(entry.name, wanted) and not _is_known(path, seen):
                yield path


def files(
    folder: str | Path, *, suffixes: tuple[str, ...] = SUFFIXES, recursive: bool = True
) -> Files:
    """The files below ``folder``.

    >>> files("/data", suffixes=(".md",)).recursive
    True
    """
    return Files(str(folder), suffixes, recursive)


@dataclass(frozen=True, slots=True)
class DecodeFile:
    """A file's record -> its documents ``{"doc", "title", "text"}``, each under its own id.

    A file is one document, but for ``.jsonl``, which has one a line. Event time is the file's.
    At most ``text_bytes_max`` bytes of text.
    """

    text_bytes_max: int = 4_000_000

    def __call__(self, record: Record) -> Iterable[Record]:
        """The documents, or Rejected."""
        if record.value is None:
            why = (f"{k} {v.decode(errors='replace')}" for k, v in record.headers.items())
            raise Rejected(f"{record.id}: the file was not read: {', '.join(why)}")
        found = list(documents(record.id, record.value))
        if not found:
            raise Rejected(f"{record.id}: no text in it")
        for document in found:
            if (size := len(document["text"].encode())) > self.text_bytes_max:
                raise Rejected(f"{record.id}: {size} bytes of text; at most {self.text_bytes_max}")
            doc = document["id"]
            value = {"doc": doc, "title": document["title"], "text": document["text"]}
            yield record.replace(id=doc, value=value)


def _ends_with(name: str, suffixes: tuple[str, ...]) -> bool:
    return not suffixes or name.lower().endswith(suffixes)


def _is_known(path: Path, seen: set[str]) -> bool:
    """Whether the path without links is in ``seen``, where it is added."""
    real = os.path.realpath(path)
    known = real in seen
    seen.add(real)
    return known


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _record(path: Path, id_: str) -> Record:
    if (readable := id_.encode(errors="surrogateescape").decode(errors="replace")) != id_:
        headers = {"path": os.fsencode(path), "unreadable": b"its name is not UTF-8"}
        return Record(readable, None, headers=headers, origin=readable)
    headers = {"path": str(path).encode(errors="surrogateescape")}
    value: bytes | None = None
    modified_ms = 0
    try:
        about = path.stat()
        modified_ms = about.st_mtime_ns // 1_000_000
        with path.open("rb") as file:
            value = file.read(FILE_BYTES_MAX + 1)
        if len(value) > FILE_BYTES_MAX:
            value = None
            headers["oversize"] = str(max(about.st_size, FILE_BYTES_MAX + 1)).encode()
    except OSError as error:
        value = None
        headers["unreadable"] = str(error).encode(errors="replace")
    return Record(id_, value, modified_ms, headers=headers, origin=id_)

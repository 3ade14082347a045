"""A folder of files as a source: one record per file, read in this process or by Flink.

Both read the same files in the same order with the same ids, and never fail on a file, nor wait for
one: what is too large, cannot be read, or is no regular file (a FIFO, a socket, a device) has value
None and a header with the reason. A file that changes while it is read is read once more.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from sage_connectors.documents import SUFFIXES, FilePart, documents
from sage_connectors.documents.parts import clean
from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.common.records import Record, Refusal

#: The largest file that is read, 64 MiB; the same limit as in the Java source.
FILE_BYTES_MAX = 64 << 20
READS_MAX = 2
_NOT_UTF8 = re.compile(r"[\udc80-\udcff]")
#: A backslash of the name itself where an escaped byte would have one; no such byte is ASCII.
_LOOKS_ESCAPED = re.compile(r"\\(?=x(?:5c|[89a-f][0-9a-f]))")


@dataclass(frozen=True, slots=True)
class Files:
    r"""The files below ``folder`` with one of the suffixes, in any letter case; all if ``()``.

    The default is every suffix that :class:`DecodeFile` reads.

    Hidden ones (a name that starts with ``.`` or ``_``, or below such a folder) are left out. A
    record's id and origin are the path relative to ``folder`` as :func:`path_text` writes it, so
    that a byte that is not UTF-8 is ``\xff``; its value is the bytes, its time the modification
    time; header ``path`` is the full path. A file without a value has a header ``oversize`` (bytes)
    or ``unreadable`` (why), such as a link that leads nowhere, a folder that may not be listed, or
    a FIFO. A file is read once, whatever links lead to it.
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
        found = self._below(root)
        return (_record(path, path.relative_to(root)) for path in found)

    def flink_source(self, jvm: Any) -> Any:
        """The Java ``FileSource<byte[]>``; every TaskManager must see the folder.

        Raises:
            ConfigError: the path of the folder is not UTF-8, as Flink's paths are.
        """
        try:
            root = os.fsencode(Path(self.folder).absolute()).decode()
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"files {self.folder!r}: the path of the folder must be UTF-8 on Flink; rename it"
            ) from error
        native = jvm.org.sage.flink.connector.WholeFileFormat
        return native.source(root, list(self.suffixes), self.recursive)

    def _below(self, root: Path) -> Iterator[Path]:
        """The files, each once, in order; what cannot be listed is one of them.

        Not recursive: a path may have two thousand folders, Python's stack has a thousand frames.
        """
        seen: set[str] = set()
        pending = [
            _Found(str(root), os.path.realpath(root), is_folder=True)
        ]  # the next one is the last
        while pending:
            found = pending.pop()
            if found.real in seen:
                continue
            seen.add(found.real)
            if not found.is_folder:
                yield Path(found.path)
                continue
            try:
                entries = sorted(os.scandir(found.path), key=_name_bytes, reverse=True)
            except OSError:
                yield Path(found.path)
                continue
            pending += [_find_file(one, found.real) for one in entries if self._is_wanted(one)]

    def _is_wanted(self, entry: "os.DirEntry[str]") -> bool:
        if entry.name.startswith((".", "_")):
            return False
        if _is_folder(entry):
            return self.recursive
        wanted = tuple(suffix.lower() for suffix in self.suffixes)
        return not wanted or path_text(entry.name).lower().endswith(wanted)


def files(
    folder: str | Path, *, suffixes: tuple[str, ...] = SUFFIXES, recursive: bool = True
) -> Files:
    """The files below ``folder``.

    >>> files("/data", suffixes=(".md",)).recursive
    True
    """
    return Files(str(folder), suffixes, recursive)


def path_text(path: str | Path) -> str:
    r"""A path as text that no other path has: each byte that is not UTF-8 is ``\xff``.

    That is two lower-case hexadecimal digits. A path that has such text itself has ``\x5c`` in
    place of the backslash; every other one is unchanged. The same in ``LocalPaths.java``.

    >>> print(path_text(os.fsdecode(b"caf\xe9.md")), path_text(r"caf\xe9.md"), path_text(r"a\b.md"))
    caf\xe9.md caf\x5cxe9.md a\b.md
    """
    text = os.fsencode(path).decode(errors="surrogateescape")
    text = _LOOKS_ESCAPED.sub(r"\\x5c", text)
    return _NOT_UTF8.sub(lambda byte: f"\\x{ord(byte[0]) & 0xFF:02x}", text)


@dataclass(frozen=True, slots=True)
class DecodeFile:
    """A file's record -> its documents ``{"doc", "title", "text"}``, each under its own id.

    Most files are one document, with the path as its id. The members of an archive and the
    attachments of a mail are ``path!member``; a line of jsonl, an object in a list of json and a
    row of a csv with a column ``text`` have their own ``id``, or ``path#number``. What is not of a
    known kind in an archive is left out, as it is in a folder. Event time is the file's.

    A part that cannot be read is a dead letter of its own, with that path and the bytes of the
    part: a replay decodes this part alone, and its documents get the ids that they would have had.
    A file, or an archive in one, of which nothing can be read is one dead letter. At most
    ``text_bytes_max`` bytes of text in a document.
    """

    text_bytes_max: int = 4_000_000

    def __call__(self, record: Record) -> Iterable[Record | Refusal]:
        """The documents and the parts that cannot be read, or Rejected."""
        if record.value is None:
            why = (f"{k} {v.decode(errors='replace')}" for k, v in record.headers.items())
            raise Rejected(f"{record.id}: the file was not read: {', '.join(why)}")
        for made in documents(record.id, record.value, text_bytes_max=self.text_bytes_max):
            if isinstance(made, FilePart):
                yield Refusal(_part_record(record, made), made.reason)
            else:
                value = {"doc": made["id"], "title": made["title"], "text": made["text"]}
                yield record.replace(id=made["id"], value=value)


def _part_record(file: Record, part: FilePart) -> Record:
    """The record of a part: one that :class:`DecodeFile` reads like a file's."""
    headers = file.headers
    if part.data is None:
        headers = {**headers, "unreadable": clean(part.reason).encode()}
    return file.replace(id=clean(part.path), value=part.data, headers=headers)


class _Found(NamedTuple):
    """A file or folder below the root; ``real`` is its path without links."""

    path: str
    real: str
    is_folder: bool


def _find_file(entry: "os.DirEntry[str]", real_folder: str) -> _Found:
    # Only a link is resolved: to do so looks at each folder of the path.
    real = os.path.realpath(entry.path) if entry.is_symlink() else f"{real_folder}/{entry.name}"
    return _Found(entry.path, real, _is_folder(entry))


def _name_bytes(entry: "os.DirEntry[str]") -> bytes:
    """What entries are sorted by: their text would depend on the locale."""
    return os.fsencode(entry.name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _record(path: Path, relative: str | Path) -> Record:
    id_ = path_text(relative)
    headers = {"path": os.fsencode(path)}
    try:
        content = read_content(path)
    except OSError as error:
        headers["unreadable"] = (error.strerror or str(error)).encode(errors="replace")
        return Record(id_, None, headers=headers, origin=id_)
    if content.value is None:
        headers["oversize"] = str(content.size).encode()
    return Record(id_, content.value, content.modified_ms, headers=headers, origin=id_)


class FileContent(NamedTuple):
    """What was read of a file: no value where it is too large."""

    value: bytes | None
    size: int
    modified_ms: int


def _read_bytes(file: BinaryIO) -> bytes:
    return file.read(FILE_BYTES_MAX + 1)


def read_content(path: Path, read: Callable[[BinaryIO], bytes] = _read_bytes) -> FileContent:
    """The content at one moment; what is not a regular file is not opened, so it never waits.

    Raises:
        OSError: the file cannot be read, is not a regular one, or changes all the time.
    """
    for _ in range(READS_MAX):
        before = _regular(path.stat())
        value = b""
        if before.st_size <= FILE_BYTES_MAX:
            with path.open("rb") as file:
                value = read(file)
        if _version(before) == _version(path.stat()):
            size = max(before.st_size, len(value))
            kept = value if size <= FILE_BYTES_MAX else None
            return FileContent(kept, size, before.st_mtime_ns // 1_000_000)
    raise OSError("it changed while it was read, each time")


def _regular(about: os.stat_result) -> os.stat_result:
    if stat.S_ISDIR(about.st_mode):
        raise OSError("the folder cannot be listed")
    if not stat.S_ISREG(about.st_mode):
        raise OSError("not a regular file")
    return about


def _version(about: os.stat_result) -> tuple[int, ...]:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns

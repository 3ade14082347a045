"""What a reader makes of a file: documents, and parts that are read like files of their own.

A part's path is ``file!member`` (a member of an archive, an attachment) or ``file#number`` (a line,
a row). It says how the part is read, as a file's path does, so a part can be read again by itself.
"""

import re
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from sage_flink.common.errors import ConfigError, Rejected

Document = dict[str, Any]

_MEMBER = re.compile(r"\.(?:zip|gz|eml|epub)!", re.I)
_ROW = re.compile(r"#\d+\Z")
_SURROGATES = re.compile("[\ud800-\udfff]")
_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")


class FilePart(NamedTuple):
    """A part of a file. With a ``reason`` it cannot be read; without ``data`` there is no more."""

    path: str
    data: bytes | None
    reason: str = ""


def document(path: str, title: object, text: str) -> Document:
    """``{"id", "title", "text"}`` with the path as id; the file's name where there is no title.

    Raises:
        Rejected: the text is blank.
    """
    text = _BLANK_LINES.sub("", clean(text)).rstrip()
    if not text:
        raise Rejected(f"{path}: the file holds no text")
    return {"id": path, "title": one_line(title) or stem_of(path), "text": text}


def name_of(path: str) -> str:
    """The file's name, or the member's.

    >>> [name_of(path) for path in ("a/b.md", "a/b.zip!c/d.md", "b.zip!wow!.md", "rows.csv#7")]
    ['b.md', 'd.md', 'wow!.md', 'rows.csv']
    """
    return PurePosixPath(_ROW.sub("", _MEMBER.split(path)[-1])).name


def stem_of(path: str) -> str:
    """The name without its suffix."""
    return PurePosixPath(name_of(path)).stem


def suffix_of(path: str) -> str:
    """What the file, the member, or the file of the row is read as, in small letters."""
    return PurePosixPath(name_of(path)).suffix.lower()


def is_row(path: str) -> bool:
    """Whether it is the path of a line or a row."""
    return _ROW.search(path) is not None


def one_line(value: object) -> str:
    """An id or a title on one line; empty if it has no sign that can be seen."""
    return " ".join(clean(str(value)).split()) if value is not None else ""


def clean(text: str) -> str:
    """The text with a mark in place of each half of a surrogate pair."""
    return _SURROGATES.sub("\ufffd", text)


def missing_package(error: ModuleNotFoundError) -> ConfigError:
    """What to raise in place of the import error of a reader's library."""
    return ConfigError(f"{error.name} is missing: pip install 'sage-flink[documents]'")

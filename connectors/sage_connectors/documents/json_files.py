"""JSON and JSON lines: objects with a text are documents, any other JSON is one document of it."""

import json
from collections.abc import Iterator
from typing import Any

from sage_connectors.documents.parts import (
    Document,
    FilePart,
    clean,
    document,
    is_row,
    name_of,
    one_line,
    stem_of,
)
from sage_connectors.documents.text import decode
from sage_flink.common.errors import Rejected


def json_lines(path: str, data: bytes) -> Iterator[Document | FilePart]:
    """Each line is a part: an object with ``text``, and maybe ``id`` and ``title``."""
    text = decode(path, data)
    if is_row(path):
        yield row_document(path, _loads(path, text))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield FilePart(f"{path}#{number}", line.encode())


def json_file(path: str, data: bytes) -> Iterator[Document | FilePart]:
    """An object with ``text``; a list of such, each a part; or the JSON itself, indented."""
    value = _loads(path, decode(path, data))
    if isinstance(value, list) and any(map(_has_text, value)):
        for number, one in enumerate(value, start=1):
            yield FilePart(f"{path}#{number}", json.dumps(one).encode())
    elif _has_text(value) or is_row(path):
        yield row_document(path, value)
    else:
        text = json.dumps(value, indent=2, ensure_ascii=False) if value else ""
        yield document(path, name_of(path), text)


def row_document(path: str, fields: Any) -> Document:
    """The document of a line or row: its own ``id``, else the path; all its fields are kept.

    Raises:
        Rejected: it has no ``text``.
    """
    if not _has_text(fields):
        raise Rejected(f"{path}: must be an object with 'text' of text")
    if not fields["text"].strip():
        raise Rejected(f"{path}: its 'text' is blank")
    id_, title = (one_line(fields.get(name)) for name in ("id", "title"))
    named = {"id": id_ or path, "title": title or stem_of(path), "text": clean(fields["text"])}
    return {**fields, **named}


def _has_text(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("text"), str)


def _loads(path: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Rejected(f"{path}: not JSON: {error}") from error
    except RecursionError as error:
        raise Rejected(f"{path}: its JSON is nested too deeply") from error

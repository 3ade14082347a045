"""A file's bytes as documents: text with a title, from txt, md, html, jsonl and pdf.

Pure: the same bytes give the same documents. A file without any text is rejected rather than
passed over, so that every file read is accounted for. What helps retrieval is kept as markdown:
headings, lists, tables, the lines of code.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from sage_connectors.front_matter import split_front_matter
from sage_flink.common.errors import ConfigError, Rejected

Document = dict[str, Any]

#: Encodings that begin with a mark of their own; without one a text is UTF-8 or is detected.
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
_SURROGATES = re.compile("[\ud800-\udfff]")


def documents(path: str, data: bytes | None) -> Iterator[Document]:
    """The documents of the file ``path``: ``id``, ``title``, ``text``, maybe ``modified_ms``.

    The id is the path, or for a line of jsonl its own ``id``, else ``path#line`` counted from 1;
    a jsonl line's further entries are kept. ``metadata`` has the fields of a front matter. A
    document without a title of its own has the name of its file.

    Raises:
        Rejected: the suffix is unknown, or the file is broken, encrypted or without text.
    """
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in _READERS:
        known = ", ".join(sorted(_READERS))
        raise Rejected(f"{path}: suffix {suffix!r} is not one of {known}")
    if data is None:
        raise Rejected(f"{path}: the file was too large or could not be read")
    made = list(_READERS[suffix](path, data))
    if not made:
        raise Rejected(f"{path}: the file holds no text")
    return iter(made)


def _plain(path: str, data: bytes) -> Iterator[Document]:
    yield from _document(path, "", _decode(path, data))


def _markdown(path: str, data: bytes) -> Iterator[Document]:
    try:
        from markdown_it import MarkdownIt
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    fields, text = split_front_matter(_decode(path, data))
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    _, text = _to_markdown(path, page)
    heading = re.search(r"^#+ +(.+)$", text, re.M)
    title = fields.get("title") or (heading[1] if heading else "")
    for document in _document(path, title, text):
        yield {**document, "metadata": fields} if fields else document


def _html(path: str, data: bytes) -> Iterator[Document]:
    yield from _document(path, *_to_markdown(path, data))


def _to_markdown(path: str, page: str | bytes) -> tuple[str, str]:
    try:
        from sage_connectors.html_text import to_markdown
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    with warnings.catch_warnings():  # bs4 suspects a file name or XML; the suffix is html
        warnings.simplefilter("ignore", UserWarning)
        try:
            return to_markdown(page)
        except RecursionError as error:
            raise Rejected(f"{path}: its elements are nested too deeply") from error


def _json_lines(path: str, data: bytes) -> Iterator[Document]:
    for number, line in enumerate(_decode(path, data).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Rejected(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise Rejected(f"{path}: line {number} must be an object with 'text' of text")
        id_, title = (_text_of(value.get(name)) for name in ("id", "title"))
        named = {"id": id_ or f"{path}#{number}", "title": title or PurePosixPath(path).stem}
        yield {**value, **named, "text": _clean(value["text"])}


def _pdf(path: str, data: bytes) -> Iterator[Document]:
    try:
        import pypdfium2
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    try:
        with pypdfium2.PdfDocument(data) as pdf:
            pages = [page.get_textpage().get_text_range() for page in pdf]
            title = pdf.get_metadata_value("Title")
    except pypdfium2.PdfiumError as error:
        raise Rejected(f"{path}: not a readable PDF: {error}") from error
    lines = "\n\n".join(pages).replace("\r\n", "\n")
    yield from _document(path, title, lines)


def _document(path: str, title: object, text: str) -> Iterator[Document]:
    text = _clean(text).strip()
    if text:
        yield {"id": path, "title": _text_of(title) or PurePosixPath(path).stem, "text": text}


def _text_of(value: object) -> str:
    """An id or a title on one line; empty if it has no sign that can be seen."""
    return " ".join(_clean(str(value)).split()) if value is not None else ""


def _clean(text: str) -> str:
    """The text with a mark in place of each half of a surrogate pair."""
    return _SURROGATES.sub("\ufffd", text)


def _decode(path: str, data: bytes) -> str:
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        text = _detected(path, data, error)
    if "\x00" in text:
        raise Rejected(f"{path}: holds NUL characters; it is not a text file")
    return text


def _detected(path: str, data: bytes, error: UnicodeDecodeError) -> str:
    """The text in the encoding that its bytes suggest."""
    try:
        from charset_normalizer import from_bytes
    except ModuleNotFoundError as missing:
        raise _missing(missing) from missing
    found = None if b"\x00" in data else from_bytes(data).best()
    if found is None:
        raise Rejected(f"{path}: not UTF-8 text, nor of an encoding that is known: {error}")
    return str(found)


def _missing(error: ModuleNotFoundError) -> ConfigError:
    return ConfigError(f"{error.name} is missing: pip install 'sage-flink[flink]'")


_READERS: dict[str, Callable[[str, bytes], Iterator[Document]]] = {
    ".txt": _plain,
    ".md": _markdown,
    ".html": _html,
    ".htm": _html,
    ".jsonl": _json_lines,
    ".pdf": _pdf,
}

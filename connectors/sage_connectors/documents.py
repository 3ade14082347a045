"""A file's bytes as documents: plain text with a title, from txt, md, html, jsonl and pdf.

Pure: the same bytes give the same documents. A file without any text is rejected rather than
passed over, so that every file read is accounted for.
"""

import io
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from sage_flink.common.errors import ConfigError, Rejected

Document = dict[str, Any]
#: The tags of HTML that end a line of text; all others are within a line.
_BLOCKS = [
    *("address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption"),
    *("figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li"),
    *("main", "nav", "ol", "p", "pre", "section", "table", "td", "th", "tr", "ul"),
]


def documents(path: str, data: bytes | None) -> Iterator[Document]:
    """The documents of the file ``path``: ``id``, ``title``, ``text``, maybe ``modified_ms``.

    The id is the path, or for a line of jsonl its own ``id``, else ``path#line`` counted from 1;
    a jsonl line's further entries are kept. Headings of markdown keep their ``#``.

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
    text = _decode(path, data).strip()
    yield from _document(path, "", text)


def _markdown(path: str, data: bytes) -> Iterator[Document]:
    try:
        from markdown_it import MarkdownIt
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    title, blocks, marks = "", list[str](), ""
    for token in MarkdownIt("commonmark").enable("table").parse(_decode(path, data)):
        if token.type == "heading_open":
            marks = token.markup if token.markup.startswith("#") else "#" * int(token.tag[1])
        elif token.type == "inline":
            text = _inline(token.children or [])
            title = title or (text if marks else "")
            blocks.append(f"{marks} {text}".strip())
            marks = ""
        elif token.type in {"fence", "code_block"}:
            blocks.append(token.content.rstrip())
    yield from _document(path, title, "\n\n".join(block for block in blocks if block))


def _inline(children: list[Any]) -> str:
    parts = []
    for child in children:
        if child.type in {"softbreak", "hardbreak"}:
            parts.append("\n")
        elif child.type in {"text", "code_inline", "image"}:
            parts.append(child.content)
    return "".join(parts).strip()


def _html(path: str, data: bytes) -> Iterator[Document]:
    try:
        import bs4
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    with warnings.catch_warnings():  # bs4 suspects a file name or XML; the suffix is html
        warnings.simplefilter("ignore", UserWarning)
        soup = bs4.BeautifulSoup(data, "html.parser")
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for tag in soup(["script", "style", "template", "noscript", "title"]):
        tag.decompose()
    for tag in soup(_BLOCKS):
        tag.insert_before("\x00")
        tag.insert_after("\x00")
    lines = (" ".join(block.split()) for block in soup.get_text().split("\x00"))
    yield from _document(path, title, "\n".join(line for line in lines if line))


def _json_lines(path: str, data: bytes) -> Iterator[Document]:
    for number, line in enumerate(_decode(path, data).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise Rejected(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise Rejected(f"{path}: line {number} must be an object with 'text' of text")
        id_ = value.get("id", f"{path}#{number}")
        title = value.get("title") or PurePosixPath(path).stem
        yield {**value, "id": str(id_), "title": str(title)}


def _pdf(path: str, data: bytes) -> Iterator[Document]:
    try:
        import pypdf
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        pages = [page.extract_text().strip() for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "")
    except Exception as error:  # on broken files pypdf raises whatever its parser fell over
        raise Rejected(f"{path}: not a readable PDF: {type(error).__name__}: {error}") from error
    yield from _document(path, title, "\n\n".join(page for page in pages if page))


def _document(path: str, title: str, text: str) -> Iterator[Document]:
    if text:
        yield {"id": path, "title": title or PurePosixPath(path).stem, "text": text}


def _decode(path: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Rejected(f"{path}: not UTF-8 text: {error}") from error
    if "\x00" in text:
        raise Rejected(f"{path}: holds NUL characters; it is not a text file")
    return text


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

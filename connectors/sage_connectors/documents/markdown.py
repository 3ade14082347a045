"""Markdown: front matter is title and metadata, html inside of it is text."""

import re
from collections.abc import Iterator

from sage_connectors.documents.front_matter import split_front_matter
from sage_connectors.documents.html import to_markdown
from sage_connectors.documents.parts import Document, document, missing_package
from sage_connectors.documents.text import decode

_HEADING = re.compile(r"^#+ +(.+)$", re.M)


def markdown(path: str, data: bytes) -> Iterator[Document]:
    """One document, with the fields of a front matter as ``metadata``."""
    fields, source = split_front_matter(decode(path, data))
    text = normalize(path, source)
    made = document(path, fields.get("title") or first_heading(text), text)
    yield {**made, "metadata": fields} if fields else made


def normalize(path: str, source: str) -> str:
    """The same text without emphasis and links; html inside of it as markdown."""
    try:
        from markdown_it import MarkdownIt
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(source)
    return to_markdown(path, page)[1]


def first_heading(text: str) -> str:
    """The first heading of a text in markdown; empty without one."""
    found = _HEADING.search(text)
    return found[1] if found else ""

"""Notebooks: markdown cells are text, code cells and what they printed are fenced blocks."""

import json
from collections.abc import Iterator
from typing import Any

from sage_connectors.documents.markdown import first_heading, normalize
from sage_connectors.documents.parts import Document, document
from sage_connectors.documents.text import decode
from sage_flink.common.errors import Rejected


def notebook(path: str, data: bytes) -> Iterator[Document]:
    """One document of formats 3 and 4; its title is in the metadata, or the first heading.

    Of an output its plain text is kept, not pictures or tracebacks.
    """
    book = json.loads(decode(path, data))
    cells = book.get("cells") if isinstance(book, dict) else None
    if cells is None and isinstance(book, dict):
        cells = [cell for sheet in book.get("worksheets", []) for cell in sheet["cells"]]
    if not isinstance(cells, list):
        raise Rejected(f"{path}: not a notebook: it has no cells")
    metadata = book.get("metadata", {})
    language = metadata.get("language_info", {}).get("name", "")
    text = "\n\n".join(block for cell in cells for block in _blocks(path, cell, language))
    yield document(path, metadata.get("title") or first_heading(text), text)


def _blocks(path: str, cell: dict[str, Any], language: str) -> Iterator[str]:
    source = _join_lines(cell.get("source", cell.get("input", "")))
    match cell.get("cell_type"):
        case "code":
            yield from _code_block(source, language)
            for output in cell.get("outputs", []):
                yield from _code_block(_output_text(output), "")
        case "heading":  # format 3
            yield f"{'#' * int(cell.get('level', 1))} {source}"
        case "markdown" if text := normalize(path, source):
            yield text
        case "raw" if source.strip():
            yield source


def _output_text(output: dict[str, Any]) -> str:
    if output.get("output_type") == "stream":
        return _join_lines(output.get("text", ""))
    data = output.get("data", output)
    return _join_lines(data.get("text/plain", "")) if isinstance(data, dict) else ""


def _code_block(lines: str, language: str) -> Iterator[str]:
    if lines.strip():
        fence = "````" if "```" in lines else "```"
        yield f"{fence}{language}\n{lines.rstrip()}\n{fence}"


def _join_lines(lines: Any) -> str:
    return "".join(lines) if isinstance(lines, list) else str(lines)

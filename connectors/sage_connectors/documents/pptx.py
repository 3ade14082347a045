"""PowerPoint: a section for each slide, with its title, lists, tables and notes."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

from sage_connectors.documents.packages import core_title, open_package
from sage_connectors.documents.parts import Document, document, missing_package
from sage_connectors.documents.tables import markdown_table


def pptx(path: str, data: bytes) -> Iterator[Document]:
    """One document; its title is that of the properties, or of the first slide."""
    try:
        from pptx import Presentation
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    with open_package(path, data) as package:
        title = core_title(package)
    slides = list(Presentation(io.BytesIO(data)).slides)
    names = [_title(slide) for slide in slides]
    sections = [_section(slide, name) for slide, name in zip(slides, names, strict=True)]
    text = "\n\n".join(filter(None, sections))
    yield document(path, title or next(filter(None, names), ""), text)


def _title(slide: Any) -> str:
    shape = slide.shapes.title
    return " ".join(shape.text_frame.text.split()) if shape is not None else ""


def _section(slide: Any, title: str) -> str:
    own = slide.shapes.title
    blocks = [f"## {title}"] if title else []
    for shape in _flat(slide.shapes):
        if own is None or shape.shape_id != own.shape_id:
            blocks.append(_block(shape))
    if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None:
        blocks.append(frame.text and f"Notes: {frame.text}")
    return "\n\n".join(filter(str.strip, blocks))


def _flat(shapes: Iterable[Any]) -> Iterator[Any]:
    """The shapes, those of groups in their place."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _flat(shape.shapes)
        else:
            yield shape


def _block(shape: Any) -> str:
    if shape.has_text_frame:
        lines = [p for p in shape.text_frame.paragraphs if p.text.strip()]
        as_list = shape.is_placeholder and len(lines) > 1
        return "\n".join(
            _item(line) if as_list else line.text.replace("\v", "\n").strip() for line in lines
        )
    if getattr(shape, "has_table", False):
        return markdown_table([[cell.text for cell in row.cells] for row in shape.table.rows])
    return ""


def _item(paragraph: Any) -> str:
    return f"{'  ' * paragraph.level}- {' '.join(paragraph.text.split())}"

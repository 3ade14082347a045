"""An article as an Office file or a PDF."""

import io
from typing import Any

from benchmark_sage.documents.articles import Article


def docx(article: Article) -> bytes:
    """A Word file with a title of its own, headings, a list and a table."""
    from docx import Document

    file = Document()
    file.core_properties.title = article.title
    file.add_heading(article.title, 1)
    file.add_paragraph(article.sentence)
    for item in article.items:
        file.add_paragraph(item, style="List Bullet")
    file.add_heading(article.table[0][0], 2)
    _fill(file.add_table(rows=len(article.table), cols=2), article)
    return _save(file)


def pptx(article: Article) -> bytes:
    """A slide with a list and notes, and one with a table."""
    from pptx import Presentation
    from pptx.util import Inches

    deck = Presentation()
    deck.core_properties.title = article.title
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = article.title
    slide.placeholders[1].text = "\n".join(article.items)
    slide.notes_slide.notes_text_frame.text = article.sentence
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = article.table[0][0]
    size = (Inches(1), Inches(2), Inches(6), Inches(2))
    _fill(slide.shapes.add_table(len(article.table), 2, *size).table, article)
    return _save(deck)


def xlsx(article: Article) -> bytes:
    """A workbook with a table, and a sheet with a sentence."""
    from openpyxl import Workbook

    book = Workbook()
    book.properties.title = article.title
    book.active.title = article.table[0][0]
    for row in article.table:
        book.active.append(row)
    book.create_sheet("notes").append([article.sentence])
    return _save(book)


def pdf(*columns: str, info: str = "<<>>", leading: int = 14) -> bytes:
    """A page with these columns of lines in Helvetica, drawn one column after the other.

    The text is Latin-1, as PDF's string syntax has it: ``\\256`` is the ligature fi.
    """
    drawn = []
    for number, column in enumerate(columns):
        lines = " T* ".join(f"({line}) Tj" for line in column.split("\n"))
        drawn.append(f"BT /F1 11 Tf {leading} TL {40 + 260 * number} 740 Td {lines} ET")
    return pdf_of("\n".join(drawn), info)


def pdf_of(content: str, info: str = "<<>>") -> bytes:
    """The smallest PDF with one page of this content, written by hand."""
    parts = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R"
        "/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(content)}>>stream\n{content}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/StandardEncoding>>",
        info,
    ]
    body, offsets = "%PDF-1.4\n", []
    for number, part in enumerate(parts, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj{part}endobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    start = len(body)
    body += f"xref\n0 7\n0000000000 65535 f \n{table}trailer<</Size 7/Root 1 0 R/Info 6 0 R>>\n"
    return f"{body}startxref\n{start}\n%%EOF".encode("latin-1")


def _fill(table: Any, article: Article) -> None:
    for row, cells in enumerate(article.table):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text


def _save(file: Any) -> bytes:
    out = io.BytesIO()
    file.save(out)
    return out.getvalue()

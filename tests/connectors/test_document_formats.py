"""Office files, books, mails, notebooks, tables and code: what helps retrieval is kept."""

import io
import json
import zipfile
from typing import Any

import openpyxl
import pytest
from docx import Document
from pptx import Presentation

from benchmark_sage.documents import formats, office
from benchmark_sage.documents.articles import ARTICLES
from sage_connectors.documents import documents
from sage_flink.common import Rejected

ARTICLE = ARTICLES[0]
TABLE = "| city | office |\n| --- | --- |\n| Leeds | 12 Park Row |\n| York | 3 Mill Lane |"
LIST = "- Keep the receipt\n- Send the goods back"


def only(path: str, data: bytes) -> dict[str, Any]:
    [document] = documents(path, data)
    assert isinstance(document, dict)
    return document


def saved(file: Any) -> bytes:
    out = io.BytesIO()
    file.save(out)
    return out.getvalue()


def test_word_keeps_headings_lists_and_tables() -> None:
    document = only("a.docx", office.docx(ARTICLE))

    assert document == {
        "id": "a.docx",
        "title": "Refund policy",
        "text": f"# Refund policy\n\n{ARTICLE.sentence}\n\n{LIST}\n\n## city\n\n{TABLE}",
    }


def test_word_without_a_title_has_its_first_heading() -> None:
    file = Document()
    file.core_properties.title = ""
    file.add_heading("A heading", 0)
    file.add_paragraph("text")

    assert only("a.docx", saved(file))["title"] == "A heading"


def test_powerpoint_has_a_section_for_each_slide_with_its_notes() -> None:
    document = only("a.pptx", office.pptx(ARTICLE))

    assert document["title"] == "Refund policy"
    assert document["text"] == (
        f"## Refund policy\n\n{LIST}\n\nNotes: {ARTICLE.sentence}\n\n## city\n\n{TABLE}"
    )


def test_the_levels_of_a_powerpoint_list_are_indented() -> None:
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    frame = slide.placeholders[1].text_frame
    frame.text = "outer"
    inner = frame.add_paragraph()
    inner.text, inner.level = "inner", 1

    document = only("talk.pptx", saved(deck))

    assert (document["title"], document["text"]) == (
        "talk",
        "- outer\n  - inner",
    )


def test_excel_has_a_table_for_each_visible_sheet() -> None:
    book = openpyxl.Workbook()
    book.active.title = "prices"
    for row in (["item", "price", None], ["tea", 3.0, None], [None] * 3, ["cup", 4.5, None]):
        book.active.append(row)
    book.create_sheet("hidden").append(["not shown"])
    book["hidden"].sheet_state = "hidden"
    book.create_sheet("notes").append(["a note"])

    assert only("a.xlsx", saved(book))["text"] == (
        "## prices\n\n| item | price |\n| --- | --- |\n| tea | 3 |\n| cup | 4.5 |\n\n"
        "## notes\n\na note"
    )


def test_a_cell_at_the_far_end_of_a_sheet_costs_no_more_than_another() -> None:
    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD200000"] = "near", "far"

    text = only("a.xlsx", saved(book))["text"]

    assert len(text) < 200_000
    assert text.rstrip(" |").endswith("far")


def test_excel_rows_beyond_what_excel_has_are_refused() -> None:
    data = office.xlsx(ARTICLE)
    sheet = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        files = {name: package.read(name) for name in package.namelist()}
    files[sheet] = files[sheet].replace(b'<row r="3"', b'<row r="99999999999"')

    with pytest.raises(Rejected, match="1048576 rows"):
        list(documents("a.xlsx", formats.zip_archive(files)))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_is_a_table_with_its_header(delimiter: str) -> None:
    data = formats.csv_table(ARTICLE, delimiter)

    assert only("a.csv", data) == {"id": "a.csv", "title": "a", "text": TABLE}


def test_a_csv_with_a_column_of_text_has_a_document_in_each_row() -> None:
    data = b'Title;Text;id;extra\nT;"first; of\ntwo lines";7;x\n;second;;x\n\n'

    first, second = documents("d/a.csv", data)

    assert first == {"id": "7", "title": "T", "text": "first; of\ntwo lines"}
    assert second == {"id": "d/a.csv#2", "title": "a", "text": "second"}


def test_json_is_indented_text_unless_it_is_a_document() -> None:
    assert only("a.json", b'{"k": ["v", 1], "n": null}') == {
        "id": "a.json",
        "title": "a.json",
        "text": '{\n  "k": [\n    "v",\n    1\n  ],\n  "n": null\n}',
    }
    assert only("a.json", b'{"id": 5, "text": "t"}') == {"id": "5", "title": "a", "text": "t"}


def test_a_list_of_objects_with_text_has_a_document_for_each() -> None:
    found = documents("a.json", json.dumps([{"text": "one"}, {"text": "two", "n": 1}]).encode())

    assert list(found) == [
        {"id": "a.json#1", "title": "a", "text": "one"},
        {"id": "a.json#2", "title": "a", "text": "two", "n": 1},
    ]


def test_a_book_is_read_in_the_order_of_its_chapters() -> None:
    document = only("a.epub", formats.epub(ARTICLE))

    assert document["title"] == "Refund policy"
    assert document["text"] == f"# Refund policy\n\n{ARTICLE.sentence}\n\n{LIST}"


def test_a_mail_is_its_headers_and_its_body() -> None:
    document = only("a.eml", formats.mail(ARTICLE))

    assert document["title"] == "Refund policy"
    assert document["text"] == (
        "From: Jörg Weiß <joerg@example.org>\nTo: team@example.org\n"
        f"Date: Mon, 02 Nov 2026 10:00:00 +0000\n\n{ARTICLE.sentence}\n\n{LIST}"
    )


@pytest.mark.parametrize("charset", ["iso-8859-1", "x-unknown", "us-ascii"])
def test_a_mail_in_an_old_or_wrong_encoding_is_read(charset: str) -> None:
    mail = f"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nContent-Type: text/plain; charset={charset}\n\n"

    document = only("a.eml", mail.encode() + "Schöne Grüße aus Köln".encode("latin-1"))

    assert (document["title"], document["text"]) == ("Grüße", "Schöne Grüße aus Köln")


def test_a_notebook_keeps_code_and_what_it_printed() -> None:
    document = only("a.ipynb", formats.notebook(ARTICLE))

    assert document["title"] == "Refund policy"
    assert document["text"] == (
        f"# Refund policy\n\n{ARTICLE.sentence}\n\n```python\n{ARTICLE.code}\n```\n\n```\n12\n```"
    )


def test_source_code_keeps_its_lines_under_its_whole_name() -> None:
    assert only("src/parser.h", b"\r\n  int x;\r\n\tint y;\r\n") == {
        "id": "src/parser.h",
        "title": "parser.h",
        "text": "  int x;\n\tint y;",
    }


def test_half_a_surrogate_in_the_text_of_a_pdf_is_replaced() -> None:
    codes = "1 begincodespacerange <00> <FF> endcodespacerange 1 beginbfchar <41> <D800> endbfchar"
    map_of_codes = f"<</Length {len(codes)}>>stream\n{codes}\nendstream"
    encoding = b"/Encoding/StandardEncoding"
    own = b"/ToUnicode 6 0 R".ljust(len(encoding))  # as long, so that all offsets stay
    data = office.pdf("xAy", info=map_of_codes).replace(encoding, own)

    assert only("a.pdf", data)["text"] == "x\ufffdy"


def test_half_a_surrogate_in_the_title_of_a_pdf_is_replaced() -> None:
    title = r"\376\377\000a\330\000\000b"  # UTF-16: a, half a pair, b

    assert only("a.pdf", office.pdf("x", info=f"<</Title({title})>>"))["title"] == "a\ufffdb"

"""Files become documents: text, title, a stable id; a broken file is rejected with a reason."""

import io

import pytest
from pypdf import PdfWriter

from sage_connectors.documents import documents
from sage_flink.common import Rejected


def test_markdown_keeps_its_headings_without_markup() -> None:
    text = (
        "# Streams\n\nA *stream* of\n[records](x).\n\n## Keys\n\n- one\n- two\n\n```py\ncode()\n```"
    )

    [document] = documents("guide/streams.md", text.encode())

    assert document == {
        "id": "guide/streams.md",
        "title": "Streams",
        "text": "# Streams\n\nA stream of\nrecords.\n\n## Keys\n\none\n\ntwo\n\ncode()",
    }


def test_scripts_and_styles_of_html_are_removed() -> None:
    page = (
        b"<head><title>T &amp; U</title><style>p{}</style>"
        b"<script>x()</script><body><h1>Hi</h1><p>you\n<b>al</b>l<br>there"
    )

    [document] = documents("a.HTML", page)

    assert (document["title"], document["text"]) == ("T & U", "Hi\nyou all\nthere")


def test_html_is_decoded_by_its_declared_encoding() -> None:
    page = '<meta charset="latin-1"><p>café'.encode("latin-1")

    [document] = documents("a.html", page)

    assert document["text"] == "café"


def test_jsonl_has_one_document_per_line() -> None:
    lines = b'{"text": "one"}\n\n{"id": 7, "text": "two", "title": "T", "modified_ms": 5}\n'

    first, second = documents("d/x.jsonl", lines)

    assert first == {"id": "d/x.jsonl#1", "title": "x", "text": "one"}
    assert second == {"id": "7", "title": "T", "text": "two", "modified_ms": 5}


def test_text_may_start_with_a_byte_order_mark() -> None:
    [document] = documents("a.txt", b"\xef\xbb\xbf hi\n")

    assert document == {"id": "a.txt", "title": "a", "text": "hi"}


def test_a_pdf_gives_the_text_of_its_pages() -> None:
    [document] = documents("paper.pdf", pdf("Hello stream"))

    assert document == {"id": "paper.pdf", "title": "paper", "text": "Hello stream"}


def pdf(text: str) -> bytes:
    """The smallest PDF with one page of text, written by hand."""
    content = f"BT /F1 24 Tf 20 100 Td ({text}) Tj ET"
    parts = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R"
        "/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(content)}>>stream\n{content}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, offsets = "%PDF-1.4\n", []
    for number, part in enumerate(parts, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj{part}endobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    start = len(body)
    body += f"xref\n0 6\n0000000000 65535 f \n{table}trailer<</Size 6/Root 1 0 R>>\n"
    return f"{body}startxref\n{start}\n%%EOF".encode()


def blank_pdf() -> bytes:
    writer, out = PdfWriter(), io.BytesIO()
    writer.add_blank_page(72, 72)
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        ("a.exe", b"MZ", "suffix '.exe'"),
        ("a", b"x", "suffix ''"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.txt", b"a\x00b", "NUL"),
        ("a.txt", b" \n", "no text"),
        ("a.md", b"", "no text"),
        ("a.html", b"<script>x</script>", "no text"),
        ("a.jsonl", b'{"text": "ok"}\n{"text":', "line 2 is not JSON"),
        ("a.jsonl", b'{"txt": "ok"}', "line 1 must be"),
        ("a.jsonl", b"[1]", "line 1 must be"),
        ("a.pdf", b"not a pdf", "not a readable PDF"),
        ("a.pdf", pdf("x")[:120], "not a readable PDF"),
        ("a.pdf", blank_pdf(), "no text"),
        ("a.txt", None, "too large or could not be read"),
    ],
)
def test_a_file_without_text_is_rejected(path: str, data: bytes | None, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        list(documents(path, data))

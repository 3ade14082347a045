"""Files become documents: text, title, a stable id; a broken file is rejected with a reason."""

import io
import time
from pathlib import Path
from typing import Any

import pypdfium2
import pytest

from benchmark_sage.documents import office
from benchmark_sage.documents.office import pdf
from sage_connectors.documents import documents
from sage_flink.common import Rejected


def only(path: str, data: bytes) -> dict[str, Any]:
    [document] = documents(path, data)
    return document


def text_of(html: str) -> str:
    text: str = only("a.html", html.encode())["text"]
    return text


def test_markdown_keeps_headings_lists_and_code_without_emphasis() -> None:
    text = (
        "# Streams\n\nA *stream* of\n[records](x).\n\n## Keys\n\n- one\n- two\n\n"
        "```py\nif x:\n\tcode()\n```"
    )

    assert only("guide/streams.md", text.encode()) == {
        "id": "guide/streams.md",
        "title": "Streams",
        "text": "# Streams\n\nA stream of\nrecords.\n\n## Keys\n\n- one\n- two\n\n"
        "```\nif x:\n\tcode()\n```",
    }


def test_html_inside_of_markdown_is_text() -> None:
    text = (
        "# T\n\n<div>\na sentence\n</div>\n\n<details><summary>More</summary>hidden</details>\n\n"
        "| a | b |\n|---|---|\n| 1<br>2 | ![a cat](x.png) |\n"
    )

    assert only("a.md", text.encode())["text"] == (
        "# T\n\na sentence\n\nMore\n\nhidden\n\n| a | b |\n| --- | --- |\n| 1 2 | a cat |"
    )


@pytest.mark.parametrize(
    "front",
    [
        "---\ntitle: Streams\ntags: [a, b]\n---\n",
        "---\r\ntitle: Streams\r\n\r\n# a comment\r\ntags:\r\n- a\r\n- b\r\n---\r\n",
        "\ufeff---\ntitle: Streams\ntags: [a, b]\n---\n",
        "+++\ntitle = 'Streams'\ntags = ['a', 'b']\n+++\n",
    ],
    ids=["yaml", "CRLF", "byte order mark", "toml"],
)
def test_the_front_matter_of_markdown_is_its_title_and_fields(front: str) -> None:
    document = only("a.md", f"{front}# First heading\n\ntext".encode())

    assert document["text"] == "# First heading\n\ntext"
    assert document["title"] == "Streams"
    assert document["metadata"] == {"title": "Streams", "tags": ["a", "b"]}


def test_a_front_matter_that_is_not_quite_yaml_still_names_the_title() -> None:
    document = only("a.md", b'---\ntitle: Streams: an overview\nauthor: "A B"\n---\ntext')

    assert document["title"] == "Streams: an overview"
    assert (document["metadata"]["author"], document["text"]) == ("A B", "text")


def test_a_front_matter_cannot_change_the_id_or_the_kind_of_its_document() -> None:
    document = only("a.md", b"---\nid: other\nop: delete\ntext: x\n---\nbody")

    assert set(document) == {"id", "title", "text", "metadata"}
    assert (document["id"], document["text"]) == ("a.md", "body")


def test_a_rule_at_the_start_is_no_front_matter() -> None:
    assert only("a.md", b"---\n\nbetween rules\n\n---\n")["text"] == "---\n\nbetween rules\n\n---"


def test_scripts_and_styles_of_html_are_removed() -> None:
    page = (
        b"<head><title>T &amp; U</title><style>p{}</style>"
        b"<script>x()</script><body><h1>Hi</h1><p>you\n<b>al</b>l<br>there"
    )

    document = only("a.HTML", page)

    assert (document["title"], document["text"]) == ("T & U", "# Hi\n\nyou\nall\nthere")


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<pre>def f(x):\n\tif x:\n\t\treturn  1</pre>", "def f(x):\n\tif x:\n\t\treturn  1"),
        ("<pre><code>a\n  b\n</code></pre>", "a\n  b"),
        ("<textarea>a\n  b</textarea>", "a\n  b"),
    ],
)
def test_code_of_html_keeps_its_lines_and_blanks(html: str, text: str) -> None:
    assert text_of(html) == f"```\n{text}\n```"


@pytest.mark.parametrize(
    "html",
    [
        "<details><summary>first</summary>second</details>",
        "<select><option>first</option><option>second</option></select>",
        "<label>first</label><button>second</button>",
        "<fieldset><legend>first</legend>second</fieldset>",
        "<dialog>first</dialog>second",
        "<figure>first<figcaption>second</figcaption></figure>",
        "<dl><dt>first</dt><dd>second</dd></dl>",
        "<table><caption>first</caption><tr><td>second</td></tr></table>",
        "<p>first<img alt='second'>",
    ],
)
def test_the_words_of_neighbouring_elements_stay_apart(html: str) -> None:
    words = text_of(html).replace("|", " ").replace(":", " ").replace("-", " ").split()

    assert words == ["first", "second"]


def test_a_table_of_html_keeps_its_rows_and_cells_together() -> None:
    html = "<table><thead><tr><th>h<th>i</thead><tbody><tr><td>a<br>b<td>c</tbody></table>"

    assert text_of(html) == "| h | i |\n| --- | --- |\n| a b | c |"


@pytest.mark.parametrize("row", ["<p>x</p>", "x<br>", "<li>x</li>", "<tr><td>x</td></tr>"])
def test_the_time_for_a_page_grows_with_its_size(row: str) -> None:
    def seconds(count: int) -> float:
        began = time.process_time()
        text_of(row * count)
        return time.process_time() - began

    small, large = (min(seconds(count) for _ in range(3)) for count in (250, 2000))

    assert large < 24 * small  # 8 if it is linear, 64 if it is quadratic


def test_html_is_decoded_by_its_declared_encoding() -> None:
    page = '<meta charset="latin-1"><p>café'.encode("latin-1")

    assert only("a.html", page)["text"] == "café"


def test_jsonl_has_one_document_per_line() -> None:
    lines = b'{"text": "one"}\n\n{"id": 7, "text": "two", "title": "T", "modified_ms": 5}\n'

    first, second = documents("d/x.jsonl", lines)

    assert first == {"id": "d/x.jsonl#1", "title": "x", "text": "one"}
    assert second == {"id": "7", "title": "T", "text": "two", "modified_ms": 5}


@pytest.mark.parametrize("id_", ["null", '""', '" "', '"\\u00a0"'])
def test_a_line_without_an_id_is_named_by_its_place(id_: str) -> None:
    lines = f'{{"id": {id_}, "title": {id_}, "text": "t"}}\n'.encode() * 2

    found = [(document["id"], document["title"]) for document in documents("x.jsonl", lines)]

    assert found == [("x.jsonl#1", "x"), ("x.jsonl#2", "x")]


def test_a_zero_is_an_id() -> None:
    assert only("x.jsonl", b'{"id": 0, "text": "t"}')["id"] == "0"


def test_half_a_surrogate_is_replaced() -> None:
    document = only("x.jsonl", b'{"text": "a\\ud800b", "title": "\\udfff"}')

    assert (document["text"], document["title"]) == ("a\ufffdb", "\ufffd")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("hi there", "utf-8-sig"),
        ("hi there", "utf-16"),
        ("café", "cp1252"),
        ("Nous remboursons l’achat sous trente jours, déjà utilisé à l’étranger.", "cp1252"),
        ("El niño está aquí mañana; ¿alguna pregunta sobre el envío?", "cp1252"),
        ("Zachowaj paragon i odeślij towar, także używany, jeśli źle działa. Też już.", "cp1250"),
        ("Мы возвращаем деньги в течение тридцати дней после покупки.", "cp1251"),
        ("Größe und Maß: ein längerer Satz über Öl, Käse und Füße.", "cp1252"),
        ("これは日本語の文章です。文字コードを判定するための例文です。", "shift_jis"),
    ],
)
def test_text_is_read_in_its_encoding(text: str, encoding: str) -> None:
    assert only("a.txt", text.encode(encoding))["text"] == text


def test_a_pdf_gives_the_text_of_its_pages() -> None:
    assert only("paper.pdf", pdf("Hello stream")) == {
        "id": "paper.pdf",
        "title": "paper",
        "text": "Hello stream",
    }


@pytest.mark.parametrize(("title", "shown"), [("A paper", "A paper"), ("   ", "paper")])
def test_the_title_of_a_pdf_is_that_of_its_metadata(title: str, shown: str) -> None:
    assert only("paper.pdf", pdf("x", info=f"<</Title({title})>>"))["title"] == shown


def test_the_columns_of_a_pdf_are_read_one_after_the_other() -> None:
    text = only("a.pdf", pdf("The first column\nends in", "the second one\nof the page"))["text"]

    assert text == "The first column\nends in\nthe second one\nof the page"


def test_ligatures_and_broken_words_of_a_pdf_are_whole_words() -> None:
    assert only("a.pdf", pdf("the \\256rst \\257ight, an exam-\nple"))["text"] == (
        "the first flight, an example"
    )


def test_an_encrypted_pdf_is_read_if_its_password_is_empty() -> None:
    folder = Path(office.__file__).parent

    data = (folder / "aes_empty_password.pdf").read_bytes()

    assert b"/AESV3" in data
    assert only("a.pdf", data)["text"] == "Encrypted page"
    with pytest.raises(Rejected, match="Incorrect password"):
        list(documents("b.pdf", (folder / "aes_password.pdf").read_bytes()))


def blank_pdf() -> bytes:
    out = io.BytesIO()
    with pypdfium2.PdfDocument.new() as document:
        document.new_page(72, 72)
        document.save(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        ("a.exe", b"MZ", "suffix '.exe'"),
        ("a", b"x", "suffix ''"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.txt", bytes(range(256)), "not UTF-8"),
        ("a.txt", b"a\x00b", "NUL"),
        ("a.txt", b" \n", "no text"),
        ("a.md", b"", "no text"),
        ("a.md", b"---\ntitle: T\n---\n", "no text"),
        ("a.html", b"<script>x</script>", "no text"),
        ("a.html", b"<div>" * 5000, "nested too deeply"),
        ("a.jsonl", b'{"text":', "a.jsonl#1: not JSON"),
        ("a.jsonl", b'{"txt": "ok"}', "a.jsonl#1: must be an object with 'text'"),
        ("a.jsonl", b'{"text": " "}', "a.jsonl#1: its 'text' is blank"),
        ("a.jsonl", b"[1]\n[2]\n[3]", r"a.jsonl#1: must be .* \(and 2 parts more\)"),
        ("a.jsonl", b"[" * 100_000, "nested too deeply"),
        ("a.pdf", b"not a pdf", "not a readable PDF"),
        ("a.pdf", pdf("x")[:120], "not a readable PDF"),
        ("a.pdf", blank_pdf(), "no text"),
        ("a.txt", None, "too large or could not be read"),
    ],
)
def test_a_file_without_text_is_rejected(path: str, data: bytes | None, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        list(documents(path, data))


def test_code_within_a_line_keeps_its_blanks() -> None:
    assert text_of("<p>run <code>a  b\tc</code> now</p>") == "run `a  b\tc` now"
    assert only("a.md", b"run `a  b` now")["text"] == "run `a  b` now"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<p>only html</p>", "only html"),
        ("<table><tr><th>a<th>b<tr><td>1<td>2</table>", "| a | b |\n| --- | --- |\n| 1 | 2 |"),
    ],
)
def test_markdown_may_be_html_only(text: str, shown: str) -> None:
    assert only("a.md", text.encode())["text"] == shown

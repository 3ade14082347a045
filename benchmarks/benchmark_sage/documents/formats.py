"""An article as the bytes of a file, for each format that needs no library of its own."""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Mapping
from email.message import EmailMessage

from benchmark_sage.documents.articles import Article

_CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)


def txt(article: Article) -> bytes:
    """Plain text in UTF-8."""
    items = "\n".join(f"* {item}" for item in article.items)
    return f"{article.title}\n\n{article.sentence}\n\n{items}\n".encode()


def markdown(article: Article) -> bytes:
    """Markdown with front matter, a list, a table and code."""
    table = "\n".join(f"| {' | '.join(row)} |" for row in article.table)
    header, rest = table.split("\n", 1)
    return (
        f"---\ntitle: {article.title}\nlang: {article.language}\n---\n"
        f"# {article.title}\n\n{article.sentence}\n\n- {article.items[0]}\n- {article.items[1]}\n\n"
        f"{header}\n|---|---|\n{rest}\n\n```python\n{article.code}\n```\n"
    ).encode()


def html(article: Article) -> bytes:
    """A page with a navigation script, a list, a table and code."""
    rows = ["".join(f"<td>{cell}</td>" for cell in row) for row in article.table[1:]]
    head = "".join(f"<th>{cell}</th>" for cell in article.table[0])
    items = "".join(f"<li>{item}</li>" for item in article.items)
    return (
        f'<html><head><meta charset="utf-8"><title>{article.title}</title>'
        f"<script>menu('x')</script></head><body><h1>{article.title}</h1><p>{article.sentence}"
        f"</p><ul>{items}</ul><table><tr>{head}</tr>{''.join(f'<tr>{r}</tr>' for r in rows)}"
        f"</table><pre>{article.code.replace('<', '&lt;')}</pre></body></html>"
    ).encode()


def python(article: Article) -> bytes:
    """Source code with a comment in the article's language."""
    return f'"""{article.title}: {article.sentence}"""\n\n\n{article.code}\n'.encode()


def csv_table(article: Article, delimiter: str = ",") -> bytes:
    """A table without a column of text."""
    return _csv(article.table, delimiter)


def csv_rows(article: Article) -> bytes:
    """A row for each document: the sentence, and the two items."""
    texts = (article.sentence, *article.items)
    return _csv((("title", "text"), *((article.title, text) for text in texts)), ";")


def _csv(rows: tuple[tuple[str, ...], ...], delimiter: str) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode("utf-8-sig")


def json_object(article: Article) -> bytes:
    """Settings: JSON that is no document by itself."""
    value = {"name": article.title, "rules": list(article.items), "days": 30}
    return json.dumps(value, ensure_ascii=False).encode()


def json_lines(article: Article) -> bytes:
    """A line for each item; its documents have no ids of their own."""
    lines = [json.dumps({"title": article.title, "text": item}) for item in article.items]
    return "\n".join(lines).encode()


def epub(article: Article) -> bytes:
    """A book of two chapters."""
    xhtml = '<html xmlns="http://www.w3.org/1999/xhtml"><body>{}</body></html>'
    items = "".join(f"<li>{item}</li>" for item in article.items)
    book = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{article.title}</dc:title>'
        '</metadata><manifest><item id="b" href="second%20part.xhtml"/><item id="a" '
        'href="first.xhtml"/></manifest><spine><itemref idref="a"/><itemref idref="b"/></spine>'
        "</package>"
    )
    return zip_archive(
        {
            "mimetype": b"application/epub+zip",
            "META-INF/container.xml": _CONTAINER.encode(),
            "OEBPS/book.opf": book.encode(),
            "OEBPS/first.xhtml": xhtml.format(
                f"<h1>{article.title}</h1><p>{article.sentence}</p>"
            ).encode(),
            "OEBPS/second part.xhtml": xhtml.format(f"<ul>{items}</ul>").encode(),
        }
    )


def mail(article: Article, attachments: Mapping[str, bytes] | None = None) -> bytes:
    """A mail in plain text and HTML."""
    message = EmailMessage()
    message["From"] = "Jörg Weiß <joerg@example.org>"
    message["To"] = "team@example.org"
    message["Subject"] = article.title
    message["Date"] = "Mon, 02 Nov 2026 10:00:00 +0000"
    message.set_content(article.sentence)
    items = "".join(f"<li>{item}</li>" for item in article.items)
    message.add_alternative(f"<p>{article.sentence}</p><ul>{items}</ul>", subtype="html")
    for name, data in (attachments or {}).items():
        message.add_attachment(data, "application", "octet-stream", filename=name)
    return message.as_bytes()


def notebook(article: Article) -> bytes:
    """A notebook with text, code and its output."""
    output = {"output_type": "stream", "name": "stdout", "text": ["12\n"]}
    cells = [
        {"cell_type": "markdown", "source": [f"# {article.title}\n", "\n", article.sentence]},
        {"cell_type": "code", "source": article.code, "outputs": [output]},
    ]
    metadata = {"language_info": {"name": "python"}}
    return json.dumps({"nbformat": 4, "metadata": metadata, "cells": cells}).encode()


def gzip_bytes(data: bytes) -> bytes:
    """The same bytes at each call."""
    return gzip.compress(data, mtime=0)


def zip_archive(files: Mapping[str, bytes]) -> bytes:
    """A zip archive of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, (2026, 11, 2, 10, 0, 0))
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()

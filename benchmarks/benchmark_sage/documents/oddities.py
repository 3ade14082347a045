"""Files that are odd by name, kind or content, and what has to come of each."""

import os
import random
import shutil
import socket
import stat
import zipfile
from io import BytesIO
from pathlib import Path

from benchmark_sage.documents import formats, office
from benchmark_sage.documents.articles import ARTICLES
from benchmark_sage.documents.folder import ExpectedDocuments

#: Pages that say "Encrypted page" in AES-256, with an empty user password and with one, made by
#: pikepdf: ``pdf.save(name, encryption=Encryption(user="", owner="owner", R=6))``.
_AES_PDFS = ("aes_empty_password.pdf", "aes_password.pdf")

GOOD_NAMES = (
    "Re: plan.md",
    "a\nb.md",
    " leading blank.md",
    "50%25 x?y#z.md",
    "größe 👍.MD",
    "wow!.md",
    "#1.md",
    "ü" * 125 + "u.txt",  # 255 bytes
    "/".join(["deep"] * 40) + "/down.md",
)
#: Names that are not UTF-8, or look like an id of one, and their ids.
RAW_NAMES = {
    b"\xff.md": r"\xff.md",
    b"\xfe.md": r"\xfe.md",
    rb"\xff.md": r"\x5cxff.md",
    b"caf\xe9 \xc3\xa9/\xe2\x82.MD": "caf\\xe9 é/\\xe2\\x82.MD",
}


def make_oddities(root: Path) -> ExpectedDocuments:
    """All of them below ``root``; some need Linux. Bombs are apart."""
    expected = ExpectedDocuments()
    for make in (_names, _links, _no_files, _contents, _broken_files, _rows, _archives, _pdfs):
        expected.add(make(root))
    return expected


def _names(root: Path) -> ExpectedDocuments:
    for name in GOOD_NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"text of {len(name)}")
    for raw, id_ in RAW_NAMES.items():
        file = root / os.fsdecode(raw)
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"text of {id_}")
    for left_out in (".hidden.md", "_draft.md", "photo.png", "no suffix"):
        (root / left_out).write_text("left out")
    found = {name: f"text of {len(name)}" for name in GOOD_NAMES}
    return ExpectedDocuments(found | {id_: f"text of {id_}" for id_ in RAW_NAMES.values()})


def _links(root: Path) -> ExpectedDocuments:
    (root / "target.md").write_text("linked text")
    (root / "twin.md").symlink_to("target.md")
    (root / "circle").symlink_to(".")
    (root / "gone.md").symlink_to("nowhere")
    (root / "self.md").symlink_to("self.md")
    return ExpectedDocuments(
        {"target.md": "linked text"},
        {"gone.md": "No such file", "self.md": "Too many levels of symbolic links"},
    )


def _no_files(root: Path) -> ExpectedDocuments:
    os.mkfifo(root / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(root)  # the name of a socket has at most 107 bytes
        server.bind("socket.txt")
        os.chdir(before)
    (root / "device.txt").symlink_to("/dev/zero")
    (root / "memory.txt").symlink_to("/proc/self/mem")
    no_file = dict.fromkeys(("pipe.txt", "socket.txt", "device.txt"), "not a regular file")
    return ExpectedDocuments({}, {**no_file, "memory.txt": "Input/output error"})


def _contents(root: Path) -> ExpectedDocuments:
    (root / "bom.txt").write_text("a mark first", encoding="utf-8-sig")
    (root / "lines.txt").write_bytes(b"one\r\ntwo\rthree")
    bad = {
        "empty.txt": (b"", "no text"),
        "blank.md": (b" \n\n", "no text"),
        "front.md": (b"---\ntitle: T\n---\n", "no text"),
        "script.html": (b"<script>x()</script>", "no text"),
        "nul.txt": (b"a\x00b", "NUL"),
        "random.txt": (random.Random(13).randbytes(2000), "not UTF-8"),
        "deep.html": (b"<div>" * 5000, "nested too deeply"),
        "deep.json": (b"[" * 100_000, "nested too deeply"),
        "program.txt": (b"\x7fELF\x02\x01\x01\x00" + bytes(100), "NUL"),
    }
    for name, (data, _) in bad.items():
        (root / name).write_bytes(data)
    for name, size in (("sparse.txt", 1 << 20), ("huge.txt", 1 << 40)):
        with (root / name).open("wb") as file:
            file.truncate(size)
    reasons = {name: reason for name, (_, reason) in bad.items()}
    return ExpectedDocuments(
        {"bom.txt": "a mark first", "lines.txt": "one\ntwo\nthree"},
        {**reasons, "sparse.txt": "NUL", "huge.txt": f"oversize {1 << 40}"},
    )


def _broken_files(root: Path) -> ExpectedDocuments:
    article = ARTICLES[0]
    docx = office.docx(article)
    bad = {
        "cut.docx": (docx[: len(docx) // 2], "broken, not a zip package"),
        "empty.xlsx": (b"", "broken, not a zip package"),
        "old.docx": (b"\xd0\xcf\x11\xe0" + bytes(500), "before Office 2007"),
        "other.pptx": (docx, "cannot be read as .pptx"),
        "text.pdf": (b"not a pdf", "not a readable PDF"),
        "cut.pdf": (office.pdf("x")[:120], "not a readable PDF"),
        "locked.epub": (_with_drm(formats.epub(article)), "encrypted"),
        "cut.gz": (formats.gzip_bytes(b"x" * 100)[:-9], "broken gzip"),
        "cut.zip": (formats.zip_archive({"a.txt": b"x"})[:-9], "broken zip"),
        "cells.ipynb": (b'{"nbformat": 4}', "no text"),
        "no mail.eml": (b"\n\nx", "no header"),
        "pictures.zip": (formats.zip_archive({"a.png": b"x"}), "no text"),
    }
    for name, (data, _) in bad.items():
        (root / name).write_bytes(data)
    return ExpectedDocuments({}, {name: reason for name, (_, reason) in bad.items()})


def _rows(root: Path) -> ExpectedDocuments:
    lines = [f'{{"text": "line {n}"}}' for n in range(1, 22)]
    lines[6] = '{"text": "line 7"'
    lines[8] = '{"text": "a\\ud800b"}'
    (root / "lines.jsonl").write_text("\n".join(lines))
    (root / "rows.csv").write_text("id,text\nr1,first\nr2,second,third\nr3,last\n")
    good = {f"lines.jsonl#{n}": f"line {n}" for n in range(1, 22) if n not in (7, 9)}
    rows = {"r1": "first", "r3": "last"}
    failed = {"lines.jsonl#7": "not JSON", "rows.csv#2": "3 fields, the header 2"}
    return ExpectedDocuments({**good, "lines.jsonl#9": "a\ufffdb", **rows}, failed)


def _archives(root: Path) -> ExpectedDocuments:
    article = ARTICLES[1]
    nested = b"deep text"
    for level in range(7):
        nested = formats.zip_archive({f"{level}.zip" if level else "a.txt": nested})
    (root / "nested.zip").write_bytes(nested)
    (root / "mixed.zip").write_bytes(mixed_archive())
    attachments = {"a.docx": office.docx(article), "a.pdf": b"no pdf", "logo.png": b"\x89PNG"}
    (root / "with files.eml").write_bytes(formats.mail(article, attachments))
    failed = {
        "nested.zip": "nested more than 5 deep",
        "mixed.zip!broken.txt": "Bad CRC-32",
        "mixed.zip!locked.txt": "encrypted",
        "mixed.zip!link.txt": "a link",
        "with files.eml!a.pdf": "not a readable PDF",
    }
    documents = {
        "mixed.zip!good.txt": "good text",
        "mixed.zip!../up.txt": "up text",
        "with files.eml": f"- {article.items[0]}",
        "with files.eml!a.docx": article.sentence,
    }
    return ExpectedDocuments(documents, failed)


def make_bombs(root: Path) -> ExpectedDocuments:
    """Small files that unpack to more than may be read; they take a second."""
    (root / "bomb.zip").write_bytes(formats.zip_archive({"zeros.txt": bytes(65 << 20)}))
    (root / "bomb.txt.gz").write_bytes(formats.gzip_bytes(bytes(65 << 20)))
    return ExpectedDocuments({}, dict.fromkeys(("bomb.zip", "bomb.txt.gz"), "unpacks to more than"))


def mixed_archive() -> bytes:
    """Good members, and one with a wrong checksum, an encrypted one, a link, and others."""
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("good", "broken", "locked"):
            archive.writestr(f"{name}.txt", f"{name} text")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../up.txt", "up text")
        for left_out in (".DS_Store", "__MACOSX/good.txt", "photo.png", "README"):
            archive.writestr(left_out, "left out")
    data = bytearray(out.getvalue().replace(b"broken text", b"BROKEN text"))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        entry = (
            data.index(b"locked.txt", data.index(header))
            if flags == 6
            else data.rindex(b"locked.txt")
        )
        data[data.rindex(header, 0, entry) + flags] |= 1
    return bytes(data)


def _pdfs(root: Path) -> ExpectedDocuments:
    left = "A first column of a page\nends in the middle of"
    for name in _AES_PDFS:
        shutil.copy(Path(__file__).parent / name, root)
    (root / "columns.pdf").write_bytes(office.pdf(left, "a sentence that goes on\nin the second"))
    (root / "ligature.pdf").write_bytes(office.pdf("the \\256rst \\257ight exam-\nple"))
    return ExpectedDocuments(
        {
            "aes_empty_password.pdf": "Encrypted page",
            "columns.pdf": "ends in the middle of\na sentence that goes on",
            "ligature.pdf": "the first flight example",
        },
        {"aes_password.pdf": "password"},
    )


def _with_drm(book: bytes) -> bytes:
    method = '<e xmlns="http://www.w3.org/2001/04/xmlenc#"><EncryptionMethod Algorithm="aes"/></e>'
    with zipfile.ZipFile(out := BytesIO(book), "a") as package:
        package.writestr("META-INF/encryption.xml", method)
    return out.getvalue()

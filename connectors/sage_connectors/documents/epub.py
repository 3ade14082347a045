"""EPUB: its chapters in reading order, each from HTML."""

import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from sage_connectors.documents.html import to_markdown
from sage_connectors.documents.packages import open_package, parse_xml
from sage_connectors.documents.parts import Document, FilePart, document
from sage_flink.common.errors import Rejected

_ENCRYPTED = "META-INF/encryption.xml"
_OBFUSCATED_FONTS = ("idpf.org/2008/embedding", "ns.adobe.com/pdf/enc#RC")


def epub(path: str, data: bytes) -> Iterator[Document | FilePart]:
    """One document with the title of the metadata, and a part for each chapter that is broken."""
    with open_package(path, data) as package:
        if _is_encrypted(package):
            raise Rejected(f"{path}: the book is encrypted (DRM)")
        place = _first(parse_xml(package.read("META-INF/container.xml")), "rootfile").get(
            "full-path"
        )
        book = parse_xml(package.read(place))
        chapters = []
        for name in _spine(book, posixpath.dirname(place)):
            try:
                chapters.append(to_markdown(path, package.read(name))[1])
            except (KeyError, zipfile.BadZipFile, Rejected) as error:
                reason = f"{path}: chapter {name!r} cannot be read: {error}"
                yield FilePart(f"{path}!{name}", None, reason)
    title = next((one.text for one in _all(book, "title") if one.text), "")
    yield document(path, title, "\n\n".join(filter(None, chapters)))


def _spine(book: Any, folder: str) -> Iterator[str]:
    """The names of the chapters in the package, in reading order."""
    names = {item.get("id"): item.get("href", "") for item in _all(book, "item")}
    for entry in _all(book, "itemref"):
        if href := names.get(entry.get("idref")):
            yield posixpath.normpath(posixpath.join(folder, unquote(href).split("#")[0]))


def _is_encrypted(package: zipfile.ZipFile) -> bool:
    """Whether more than fonts is encrypted: those are obfuscated in many free books."""
    if _ENCRYPTED not in package.namelist():
        return False
    methods = _all(parse_xml(package.read(_ENCRYPTED)), "EncryptionMethod")
    return any(not (one.get("Algorithm") or "").endswith(_OBFUSCATED_FONTS) for one in methods)


def _all(root: Any, name: str) -> Iterator[Any]:
    """The elements of this name, in whatever namespace a book's maker chose."""
    yield from root.iter(f"{{*}}{name}")


def _first(root: Any, name: str) -> Any:
    found = next(_all(root, name), None)
    if found is None:
        raise ValueError(f"no element {name!r}")
    return found

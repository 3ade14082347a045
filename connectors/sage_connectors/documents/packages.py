"""Zip packages that are one document, such as docx and epub: opened with a limit on their size."""

import io
import zipfile
from typing import Any

from sage_connectors.documents.parts import missing_package
from sage_flink.common.errors import Rejected

#: What all files of a package may have unpacked, and the XML among them, which is parsed.
PACKAGE_BYTES_MAX = 256 << 20
XML_BYTES_MAX = 32 << 20
_MEDIA = (".png", ".jpg", ".jpeg", ".gif", ".emf", ".wmf", ".bin", ".ttf", ".otf", ".mp4", ".mp3")
_OLD_OFFICE = b"\xd0\xcf\x11\xe0"
_DUBLIN_CORE_TITLE = "{http://purl.org/dc/elements/1.1/}title"


def open_package(path: str, data: bytes, *, xml_bytes_max: int = XML_BYTES_MAX) -> zipfile.ZipFile:
    """The package's files. A file never unpacks to more than the package declares.

    Raises:
        Rejected: it is no zip file, encrypted, or larger than the limits.
    """
    if data.startswith(_OLD_OFFICE):
        raise Rejected(f"{path}: is encrypted, or in the format before Office 2007; save it anew")
    try:
        package = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise Rejected(f"{path}: broken, not a zip package: {error}") from error
    files = package.infolist()
    parsed = sum(f.file_size for f in files if not f.filename.lower().endswith(_MEDIA))
    for size, limit in (
        (sum(f.file_size for f in files), PACKAGE_BYTES_MAX),
        (parsed, xml_bytes_max),
    ):
        if size > limit:
            raise Rejected(f"{path}: unpacks to {size} bytes; at most {limit}")
    return package


def core_title(package: zipfile.ZipFile) -> str:
    """The title in the core properties of an Office file; empty without one."""
    if "docProps/core.xml" not in package.namelist():
        return ""
    return parse_xml(package.read("docProps/core.xml")).findtext(f".//{_DUBLIN_CORE_TITLE}") or ""


def parse_xml(data: bytes) -> Any:
    """The root element; entities are not expanded, and no file or host is asked."""
    try:
        from lxml import etree
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    root = etree.fromstring(data, parser)
    if root is None:
        raise ValueError("the file holds no XML")
    return root

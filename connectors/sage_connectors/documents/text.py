"""Plain text and source code: their encoding is detected, their lines are kept."""

from collections.abc import Iterator

from sage_connectors.documents.parts import Document, document, missing_package, name_of
from sage_flink.common.errors import Rejected

#: Encodings that begin with a mark of their own; without one a text is UTF-8 or is detected.
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))

#: Most files in an old encoding are in this one. The library takes French, Spanish and Italian in
#: it for Baltic, Polish or Vietnamese, which fit its statistics as well, or a little better.
_USUAL = "cp1252"
#: Without a mark, and without zeros, they are guesses at short texts.
_NEVER = ["utf_16_be", "utf_16_le", "utf_32_be", "utf_32_le"]


def plain_text(path: str, data: bytes) -> Iterator[Document]:
    """The text as it is."""
    yield document(path, "", decode(path, data))


def source_code(path: str, data: bytes) -> Iterator[Document]:
    """The lines as they are, without a fence; the title is the whole name, as ``parser.h``."""
    yield document(path, name_of(path), decode(path, data))


def decode(path: str, data: bytes) -> str:
    r"""The text of the bytes, its lines ended by ``\n``.

    Raises:
        Rejected: it is not text, or of an encoding that cannot be detected.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        text = _detect(path, data, error)
    if "\x00" in text:
        raise Rejected(f"{path}: holds NUL characters; it is not a text file")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _detect(path: str, data: bytes, error: UnicodeDecodeError) -> str:
    """The text in the encoding that its bytes suggest."""
    try:
        from charset_normalizer import from_bytes
    except ModuleNotFoundError as missing:
        raise missing_package(missing) from missing
    found = [] if b"\x00" in data else list(from_bytes(data, cp_exclusion=_NEVER))
    if not found:
        raise Rejected(f"{path}: not UTF-8 text, nor of an encoding that is known: {error}")
    best = found[0]
    usual = [one for one in found if _USUAL in one.could_be_from_charset]
    if usual and usual[0].chaos <= best.chaos + 0.1 and usual[0].coherence >= best.coherence - 0.03:
        best = usual[0]
    return str(best)

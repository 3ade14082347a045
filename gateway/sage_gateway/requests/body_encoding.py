"""The headers ``content-encoding`` and ``content-type`` of a request."""

import zlib

from sage_gateway.errors import InvalidRequest, TooLarge, UnsupportedMedia
from sage_gateway.openai.schema import BODY_BYTES_MAX

#: zlib finds out whether it is gzip or zlib's own form.
_ANY_HEADER = 32 + zlib.MAX_WBITS
_FORMS = (b"multipart/form-data", b"application/x-www-form-urlencoded")


def decompress(body: bytes, encoding: bytes) -> bytes:
    """The body before its encoding.

    Raises:
        UnsupportedMedia: the encoding is not gzip, deflate or identity.
        InvalidRequest: the body is not encoded in that way.
        TooLarge: it is larger than a body may be.
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name not in (b"gzip", b"x-gzip", b"deflate"):
        shown = encoding.decode("latin-1")
        raise UnsupportedMedia(f"content-encoding {shown!r} is not taken; gzip and deflate are")
    reader = zlib.decompressobj(_ANY_HEADER)
    try:
        found = reader.decompress(body, BODY_BYTES_MAX + 1)
    except zlib.error as error:
        message = f"the body is not {name.decode()}: {error}"
        raise InvalidRequest(message, code="invalid_encoding") from error
    if len(found) > BODY_BYTES_MAX:
        raise body_too_large()
    if not reader.eof:
        raise InvalidRequest("the compressed body is cut short", code="invalid_encoding")
    return found


def check_content_type(content_type: bytes) -> None:
    """Refuse a form; a body of any other type, or of none, is read as JSON.

    Raises:
        UnsupportedMedia: it is a form.
    """
    if content_type.strip().lower().startswith(_FORMS):
        raise not_json_type(content_type)


def not_json_type(content_type: bytes) -> UnsupportedMedia:
    """The error of a body that is of another type than JSON."""
    shown = content_type.decode("latin-1")[:100]
    message = f"content-type {shown!r} is not taken here; send JSON as 'application/json'"
    return UnsupportedMedia(message, code="unsupported_content_type", param="content-type")


def body_too_large() -> TooLarge:
    """The error of a body that is larger than a body may be."""
    message = f"the body is larger than {BODY_BYTES_MAX} bytes"
    return TooLarge(message, code="body_too_large")

"""Whether an answer is finished: only such an answer may be stored and given again."""

from typing import Annotated, Any

import msgspec

#: How the last chunk of a finished stream ends.
END = b"[DONE]\n\n"
_ERROR_EVENT = b'data: {"error"'


class _Answer(msgspec.Struct):
    choices: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=1 << 16)] | None = None
    data: list[msgspec.Raw] | None = None
    results: list[msgspec.Raw] | None = None
    error: Any = None


_PAGE = msgspec.json.Decoder(_Answer)


def is_complete(body: bytes, *, bytes_max: int) -> bool:
    """Whether the body of a 200 is a finished answer: whole JSON with ``choices`` or ``data``.

    An engine may send status 200 with an error or half a page; stored, that would defeat every
    retry.
    """
    if len(body) > bytes_max:
        return False
    try:
        page = _PAGE.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return page.error is None and bool(page.choices or page.data or page.results)


def has_error_event(chunk: bytes) -> bool:
    """Whether one of these events is an error; a line break inside a text is always escaped."""
    return chunk.startswith(_ERROR_EVENT) or b"\n" + _ERROR_EVENT in chunk

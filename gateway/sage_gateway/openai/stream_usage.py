"""The ``usage`` in a stream: in an event without choices where the client asks for it, or left out.

llama.cpp counts the tokens of every stream, and of a completion in the event that ends a choice.
Source: OpenAI API reference, ``stream_options.include_usage``.
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from sage_gateway.openai.schema import GenerationRequest

_DATA = b"data:"
#: A quote inside of a text is escaped, so no text looks like this.
_USAGE = re.compile(rb'"usage"\s*:\s*\{')


def place_usage(payload: GenerationRequest, chunk: bytes) -> bytes:
    """A chunk of whole events with the usage where ``payload`` asks for it; it may become empty.

    vLLM's ``continuous_usage_stats`` asks for it in each event: those are left as they are.
    """
    if _USAGE.search(chunk) is None:
        return chunk
    options = payload.stream_options
    asked = options is not None and options.include_usage
    if options is not None and asked and options.continuous_usage_stats:
        return chunk
    events = chunk.removesuffix(b"\n\n").split(b"\n\n")
    return b"".join(one + b"\n\n" for event in events for one in _place(event, asked=asked))


def _place(event: bytes, *, asked: bool) -> Iterator[bytes]:
    page = _decode(event) if _USAGE.search(event) else None
    if page is None or (asked and not page.get("choices")):
        yield event
        return
    usage = page.pop("usage", None)
    if page.get("choices"):
        yield b"data: " + orjson.dumps(page)
    if asked and usage is not None:
        yield b"data: " + orjson.dumps({**page, "choices": [], "usage": usage})


def _decode(event: bytes) -> dict[str, Any] | None:
    """The page of an event; None if it is an error, or not of this form."""
    if not event.startswith(_DATA):
        return None
    try:
        page = orjson.loads(event.removeprefix(_DATA))
    except orjson.JSONDecodeError:
        return None
    return page if isinstance(page, dict) and "choices" in page else None

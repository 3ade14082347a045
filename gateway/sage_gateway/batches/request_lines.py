"""One line of a batch's file, the request that it is, and the line that answers it: pure.

Source: OpenAI API reference, the request input and the request output object of a batch.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Annotated, BinaryIO, NamedTuple

import msgspec
import orjson

from sage_gateway.batches.schema import Mistake
from sage_gateway.openai.schema import BODY_BYTES_MAX
from sage_gateway.requests.response import Response

#: A body of the size that a request may have, and what stands around it.
LINE_BYTES_MAX = BODY_BYTES_MAX + (64 << 10)
FAILURES_MAX = 4
WAIT_MAX_S = 60.0


class Line(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A request as it stands in the file."""

    custom_id: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    method: str
    url: str
    body: msgspec.Raw


class Numbered(NamedTuple):
    """A line that is not blank, and its number, from 1; None is one that is too long."""

    number: int
    raw: bytes | None


class _Head(msgspec.Struct):
    model: str
    stream: bool | None = None


_LINE = msgspec.json.Decoder(Line)
_HEAD = msgspec.json.Decoder(_Head)


def lines_of(file: BinaryIO) -> Iterator[Numbered]:
    """The lines of a file, one in memory at a time."""
    number = 0
    while raw := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        long = len(raw) > LINE_BYTES_MAX
        while long and not raw.endswith(b"\n") and raw:
            raw = file.readline(LINE_BYTES_MAX)
        if long:
            yield Numbered(number, None)
        elif raw.strip():
            yield Numbered(number, raw)


def line_in(raw: bytes) -> Line:
    """The line, whose body is an object that names a model.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it is none.
    """
    line = _LINE.decode(raw)
    _HEAD.decode(line.body)
    return line


def wrong_in(line: Line, endpoint: str) -> tuple[str, str, str] | None:
    """Why it cannot be a line of a batch for ``endpoint``: code, what is wrong, where."""
    if line.method != "POST":
        return "invalid_method", f"method must be 'POST', got {line.method!r:.40}", "method"
    if line.url != endpoint:
        return (
            "invalid_url",
            f"url must be {endpoint!r} as in the batch, got {line.url!r:.80}",
            "url",
        )
    if _HEAD.decode(line.body).stream:
        return "stream_not_supported", "a line is answered whole; remove stream", "body.stream"
    return None


def model_of(line: Line) -> str:
    """The model that is to answer it."""
    return _HEAD.decode(line.body).model


def mistake(number: int, code: str, message: str, param: str | None = None) -> Mistake:
    """What is wrong with line ``number``."""
    return Mistake(code=code, line=number, message=f"line {number}: {message}", param=param)


def request_id(batch_id: str, number: int) -> str:
    """32 hex digits, the same whenever it is asked: the ledger answers a line once."""
    return blake2b(f"{batch_id}/{number}".encode(), digest_size=16).hexdigest()


def again_in_s(answer: Response, failures: int) -> float | None:
    """How long to wait before the line is asked again; None if this is its answer.

    A limit, a full queue or a model that starts is waited for as long as the batch may take; what
    fails otherwise is tried ``FAILURES_MAX`` times.
    """
    if answer.status < 500 and answer.status != 429:
        return None
    named = dict(answer.headers).get(b"retry-after", b"")
    wait_s = min(float(named) if named.isdigit() else 1.0, WAIT_MAX_S)
    return wait_s if waits(answer) or failures < FAILURES_MAX else None


def waits(answer: Response) -> bool:
    """Whether only time stands between the line and its answer, and it has cost no try."""
    if answer.status not in (429, 503):
        return False
    return b'"engine_lost"' not in answer.body


def told(batch_id: str, number: int, custom_id: str, answer: Response) -> bytes:
    """The line of the output that gives ``answer``, an error too."""
    asked = request_id(batch_id, number)
    response = {"status_code": answer.status, "request_id": asked, "body": _json(answer.body)}
    page = {"id": f"batch_req_{asked[:24]}", "custom_id": custom_id, "response": response}
    return orjson.dumps({**page, "error": None}) + b"\n"


def untold(batch_id: str, number: int, custom_id: str, code: str, message: str) -> bytes:
    """The line of the error file for a request that was never answered."""
    error = {"code": code, "message": message}
    page = {"id": f"batch_req_{request_id(batch_id, number)[:24]}", "custom_id": custom_id}
    return orjson.dumps({**page, "response": None, "error": error}) + b"\n"


def _json(body: bytes) -> object:
    """The body of an answer as a part of another; an engine's may be no JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"error": {"message": body.decode("utf-8", "replace")[:1000]}}

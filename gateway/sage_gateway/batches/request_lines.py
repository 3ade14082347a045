"""Lines of a batch's input and output files: parsing, validation, retry decisions. Pure.

Source: OpenAI API reference, the request input and the request output object of a batch.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Annotated, BinaryIO, NamedTuple

import msgspec
import orjson

from sage_gateway.batches.schema import BatchError
from sage_gateway.openai.schema import BODY_BYTES_MAX
from sage_gateway.requests.response import Response

#: The largest body of a request, and room for the fields around it.
LINE_BYTES_MAX = BODY_BYTES_MAX + (64 << 10)
FAILURES_MAX = 4
WAIT_MAX_S = 60.0


class RequestLine(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A request as the input file has it."""

    custom_id: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    method: str
    url: str
    body: msgspec.Raw


class NumberedLine(NamedTuple):
    """A line that is not blank, and its number, from 1. ``raw`` is None if it is too long."""

    number: int
    raw: bytes | None


class _BodyHead(msgspec.Struct):
    model: str
    stream: bool | None = None


_LINE = msgspec.json.Decoder(RequestLine)
_HEAD = msgspec.json.Decoder(_BodyHead)


def read_lines(file: BinaryIO) -> Iterator[NumberedLine]:
    """The lines of a file, one in memory at a time."""
    number = 0
    while raw := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        too_long = len(raw) > LINE_BYTES_MAX
        while too_long and not raw.endswith(b"\n") and raw:
            raw = file.readline(LINE_BYTES_MAX)
        if too_long:
            yield NumberedLine(number, None)
        elif raw.strip():
            yield NumberedLine(number, raw)


def parse_line(raw: bytes) -> RequestLine:
    """The request of a line; its body is an object with a ``model``.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it is not a request.
    """
    line = _LINE.decode(raw)
    _HEAD.decode(line.body)
    return line


def find_error(line: RequestLine, endpoint: str) -> tuple[str, str, str] | None:
    """Why the line cannot be in a batch for ``endpoint``: code, message and param."""
    if line.method != "POST":
        return "invalid_method", f"method must be 'POST', got {line.method!r:.40}", "method"
    if line.url != endpoint:
        return (
            "invalid_url",
            f"url must be {endpoint!r} as in the batch, got {line.url!r:.80}",
            "url",
        )
    if _HEAD.decode(line.body).stream:
        message = "a batch cannot stream; remove stream"
        return "stream_not_supported", message, "body.stream"
    return None


def model_of(line: RequestLine) -> str:
    """The model that the request names."""
    return _HEAD.decode(line.body).model


def batch_error(number: int, code: str, message: str, param: str | None = None) -> BatchError:
    """An error in line ``number``."""
    return BatchError(code=code, line=number, message=f"line {number}: {message}", param=param)


def request_id(batch_id: str, number: int) -> str:
    """32 hex digits, the same at every call: the idempotency store answers a line once."""
    return blake2b(f"{batch_id}/{number}".encode(), digest_size=16).hexdigest()


def retry_wait_s(answer: Response, failures: int) -> float | None:
    """How long to wait before the line is sent again; None if ``answer`` is final.

    After a rate limit, a full queue or a starting model the line is retried until the batch
    expires; after any other failure ``FAILURES_MAX`` times.
    """
    if answer.status < 500 and answer.status != 429:
        return None
    header = dict(answer.headers).get(b"retry-after", b"")
    wait_s = min(float(header) if header.isdigit() else 1.0, WAIT_MAX_S)
    return wait_s if is_not_admitted(answer) or failures < FAILURES_MAX else None


def is_not_admitted(answer: Response) -> bool:
    """Whether the request was turned away before it reached an engine; not counted as a failure."""
    if answer.status not in (429, 503):
        return False
    return b'"engine_lost"' not in answer.body


def answer_line(batch_id: str, number: int, custom_id: str, answer: Response) -> bytes:
    """The line of the output file, or of the error file, with ``answer``."""
    call_id = request_id(batch_id, number)
    response = {"status_code": answer.status, "request_id": call_id, "body": _json(answer.body)}
    page = {"id": f"batch_req_{call_id[:24]}", "custom_id": custom_id, "response": response}
    return orjson.dumps({**page, "error": None}) + b"\n"


def missing_answer_line(
    batch_id: str, number: int, custom_id: str, code: str, message: str
) -> bytes:
    """The line of the error file for a request without an answer."""
    error = {"code": code, "message": message}
    page = {"id": f"batch_req_{request_id(batch_id, number)[:24]}", "custom_id": custom_id}
    return orjson.dumps({**page, "response": None, "error": error}) + b"\n"


def _json(body: bytes) -> object:
    """The body as a JSON value; an engine's body may be anything."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"error": {"message": body.decode("utf-8", "replace")[:1000]}}

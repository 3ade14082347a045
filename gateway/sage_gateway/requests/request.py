"""One request, read once where it enters the gateway and handed down from handler to handler."""

import codecs
import math
import time
from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from sage_flink.flow.call_options import PRIORITIES, PRIORITY
from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.errors import GatewayError, InvalidRequest
from sage_gateway.openai.decoding import dump_fields, load_fields
from sage_gateway.openai.routes import SEARCH_ROUTE, Payload, collection_of, decode_payload
from sage_gateway.requests.body_encoding import check_content_type
from sage_gateway.requests.cache_control import cache_ttl_s
from sage_gateway.requests.response import NO_TOKENS, Response, StreamingResponse

NORMAL = PRIORITIES.index(PRIORITY)
BACKGROUND = PRIORITIES.index("background")
REQUEST_ID_CHARS_MAX = 200
TENANT_CHARS_MAX = 100
JOB_CHARS_MAX = 200

Headers = Mapping[bytes, bytes]

NO_HEADERS: Headers = MappingProxyType({})
NO_FIELDS: Mapping[str, Any] = MappingProxyType({})
_PRIORITIES = {name.encode(): i for i, name in enumerate(PRIORITIES)}


class ApiKey(Protocol):
    """The client's API key, as far as handlers need it."""

    @property
    def id(self) -> str:
        """Its id, which is not the key itself."""
        ...

    @property
    def limits(self) -> LimitsSpec:
        """Its own rate limits and budgets."""
        ...

    @property
    def cache_ttl_s(self) -> int:
        """How old a cached answer may be that it is given; 0: it gets no cached answers."""
        ...


class Progress(msgspec.Struct, eq=False):
    """What engines have generated for a client; the requests made on its behalf share it.

    ``used``: tokens, ``in`` and ``out``, of the calls of a pipeline that are complete, and of every
    call that was aborted because the client disconnected. ``hung_up``: it did.
    """

    used: dict[str, int] = msgspec.field(default_factory=dict)
    hung_up: bool = False

    def add(self, used: Mapping[str, int]) -> None:
        """Add the tokens of a call."""
        for direction, count in used.items():
            self.used[direction] = self.used.get(direction, 0) + count


class OutcomeReporter(Protocol):
    """Where the outcome of a request is reported."""

    def end(self, status: int, used: Mapping[str, int] = NO_TOKENS) -> None:
        """Report the status that the client gets, and the tokens; only the first call counts."""
        ...


class Request(msgspec.Struct, eq=False):
    """A POST to an inference route.

    ``request_id``: the client's, empty without one; ``log_id``: the one in the answer and the log.
    ``payload``: the decoded body; absent where ``invalid`` is the reason why it cannot be read.
    ``headers``: names in lower case; of a repeated name the last value. ``deadline_s`` and
    ``soft_deadline_s`` are of the epoch, infinite without one. ``priority``: index into PRIORITIES,
    0 first. ``job``: the Flink job that sends it. ``cache_ttl_s``: of ``x-sage-cache``, 0 without.
    ``received_s``: by ``time.perf_counter``.

    Set on the way down: ``record_key`` names the idempotency record that will hold the answer;
    ``traceparent`` is that of the request's span, empty where it is not sampled. ``tracked``:
    its outcome is reported. ``reporter``: set by inference with a whole answer that is still to be
    charged; see :meth:`end`. ``progress``: for the charge of an answer that is never complete.
    """

    path: str = ""
    body: bytes = b""
    headers: Headers = NO_HEADERS
    key: ApiKey | None = None
    tenant: str = ""
    request_id: str = ""
    log_id: str = ""
    priority: int = NORMAL
    deadline_s: float = math.inf
    soft_deadline_s: float = math.inf
    job: str = ""
    cache_ttl_s: int = 0
    payload: Payload | None = None
    invalid: GatewayError | None = None
    record_key: bytes = b""
    traceparent: str = ""
    all_fields: dict[str, Any] | None = None
    tracked: bool = False
    reporter: OutcomeReporter | None = None
    progress: Progress = msgspec.field(default_factory=Progress)
    received_s: float = msgspec.field(default_factory=time.perf_counter)

    @property
    def route(self) -> str:
        """The path as metrics and traces name it."""
        return SEARCH_ROUTE if collection_of(self.path) is not None else self.path

    @property
    def background(self) -> bool:
        """Whether it may wait without limit, and be preempted."""
        return self.priority == BACKGROUND

    @property
    def repeatable(self) -> bool:
        """Whether it has an id, so that it may be sent twice and is answered once."""
        return bool(self.request_id) or b"idempotency-key" in self.headers

    def fields(self) -> dict[str, Any]:
        """All fields of the body, loaded at the first call.

        Raises:
            InvalidRequest: a field that no schema names has a value that cannot be read.
        """
        if self.all_fields is None:
            self.all_fields = load_fields(self.body)
        return self.all_fields

    def end(self, status: int, used: Mapping[str, int] = NO_TOKENS) -> None:
        """Report the outcome, if inference left that to the quota."""
        # Released, as the two refer to each other: with a few thousand such pairs a second Python's
        # collector stops every request for 25-50 ms once a second.
        reporter, self.reporter = self.reporter, None
        if reporter is not None:
            reporter.end(status, used)

    def body_for(self, model: str, more: Mapping[str, Any] = NO_FIELDS) -> bytes:
        """The body with ``model`` as its model, and with the fields ``more``.

        Raises:
            InvalidRequest: as :meth:`fields`, or the body is nested too deeply.
        """
        return dump_fields({**self.fields(), **more, "model": model})


#: What ``handle`` returns. It may be the coroutine of the next handler, so that a handler that only
#: passes a request on adds none of its own.
Answering = Coroutine[Any, Any, Response | StreamingResponse]


class Handler(Protocol):
    """Answers requests; handlers wrap one another: cache, idempotency, quota, inference."""

    async def handle(self, request: Request) -> Response | StreamingResponse:
        """The answer.

        Raises:
            GatewayError: the request is not answered.
        """
        ...


def read_request(
    path: str, headers: Headers, body: bytes, *, key: ApiKey | None = None, tenant: str = ""
) -> Request:
    """The request in a POST to ``path``; one that cannot be read has ``invalid`` set.

    ``body`` is decompressed. Without ``tenant`` the header ``x-sage-tenant`` names it.
    """
    request = Request(path, body, headers, key, tenant)
    request.request_id = client_request_id(headers)
    try:
        read_scheduling(request, headers)
        if (shown := headers.get(b"content-type")) is not None:
            check_content_type(shown)
        if body.startswith(codecs.BOM_UTF8):
            request.body = body = body[len(codecs.BOM_UTF8) :]
        if (shown := headers.get(b"x-sage-cache")) is not None:
            request.cache_ttl_s = cache_ttl_s(shown)
        request.payload = decode_payload(path, body)
    except GatewayError as error:
        request.invalid = error.with_traceback(None)
    return request


def client_request_id(headers: Headers) -> str:
    """The id in ``x-request-id``; empty without one, or if it is not printable ASCII."""
    shown = headers.get(b"x-request-id")
    if not shown:
        return ""
    text = shown[:REQUEST_ID_CHARS_MAX].decode("latin-1")
    return text if text.isascii() and text.isprintable() else ""


def read_scheduling(request: Request, headers: Headers) -> None:
    """Read the headers that decide when the request is served.

    Raises:
        InvalidRequest: a priority or a deadline has another form.
    """
    if not request.tenant and (shown := headers.get(b"x-sage-tenant")):
        request.tenant = shown.decode("latin-1")[:TENANT_CHARS_MAX]
    if headers.get(b"x-background") == b"1":
        request.priority = BACKGROUND
    elif shown := headers.get(b"x-sage-priority"):
        if shown not in _PRIORITIES:
            raise _invalid_header("x-sage-priority", f"one of {', '.join(PRIORITIES)}")
        request.priority = _PRIORITIES[shown]
    request.deadline_s = _time_s(headers, "x-sage-deadline-ms")
    request.soft_deadline_s = _time_s(headers, "x-sage-soft-deadline-ms")
    if shown := headers.get(b"x-sage-job"):
        request.job = shown.decode("latin-1")[:JOB_CHARS_MAX]


def _time_s(headers: Headers, name: str) -> float:
    """Seconds of the epoch; infinite without the header."""
    shown = headers.get(name.encode())
    if not shown:
        return math.inf
    if not shown.isdigit() or len(shown) > 15:
        raise _invalid_header(name, "milliseconds since the epoch")
    return int(shown) / 1000


def _invalid_header(name: str, form: str) -> GatewayError:
    return InvalidRequest(f"{name} must be {form}", code="invalid_header", param=name)

"""One inference request on a connection, and its answer.

The answer is written to the transport directly: the events of ASGI took a tenth of the throughput.
When the client disconnects, the work is cancelled and the engine's request aborted, except a
request with an id (see :mod:`sage_gateway.idempotency.in_flight_calls`).
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Protocol

import msgspec
from uvicorn.protocols.http.flow_control import FlowControl

from sage_gateway.errors import GatewayError, InternalError, NoReplica
from sage_gateway.openai.schema import BODY_BYTES_MAX
from sage_gateway.requests.body_encoding import body_too_large, decompress
from sage_gateway.requests.request import (
    NO_HEADERS,
    ApiKey,
    Handler,
    Headers,
    Progress,
    Request,
    read_request,
)
from sage_gateway.requests.response import EVENTS, Response, StreamingResponse, error_response

log = logging.getLogger("sage.gateway")

DRAINED_BYTES_MAX = 4 * BODY_BYTES_MAX
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_CACHE = (b"cache-control", b"no-cache")
_STATUS_LINES = {s.value: b"HTTP/1.1 %d %b\r\n" % (s, s.phrase.encode()) for s in HTTPStatus}


class RequestHead(msgspec.Struct):
    """What is known of a request before its body.

    ``request_id``: the client's, or a new one. ``answer_headers``: of its answer, whatever it is.
    ``refusal``: why it is not answered.
    """

    path: str = ""
    headers: Headers = NO_HEADERS
    key: ApiKey | None = None
    tenant: str = ""
    request_id: str = ""
    answer_headers: tuple[tuple[bytes, bytes], ...] = ()
    refusal: GatewayError | None = None
    http_1_0: bool = False


class Connection(Protocol):
    """The connection of an exchange, a :class:`GatewayProtocol`."""

    transport: asyncio.Transport
    flow: FlowControl
    handler: Handler

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every answer."""
        ...

    def start(self, exchange: "Exchange") -> "asyncio.Task[None]":
        """Run ``exchange`` in a task."""
        ...

    def on_response_complete(self) -> None:
        """The next request of the connection may be answered."""
        ...


class Exchange:
    """A request and its answer; uvicorn's protocol has a cycle in this place.

    The names without an underscore are those that uvicorn uses. ``begin`` is called when all
    earlier requests of the connection are answered.
    """

    __slots__ = (
        "_answering",
        "_body",
        "_body_bytes",
        "_complete",
        "_connection",
        "_head",
        "_progress",
        "_started",
        "disconnected",
        "keep_alive",
        "response_complete",
        "response_started",
    )

    #: uvicorn sets it at a disconnect; nothing waits for it.
    message_event = asyncio.Event()

    def __init__(self, connection: Connection, head: RequestHead, *, keep_alive: bool) -> None:
        self.disconnected = self.response_started = self.response_complete = False
        self.keep_alive = keep_alive
        self._connection = connection
        self._head = head
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._complete = self._started = False
        self._answering: asyncio.Task[None] | None = None
        self._progress: Progress | None = None

    # Called by the connection.

    def begin(self) -> None:
        """Answer the request as soon as it is complete; a refused one now."""
        if self._head.refusal is not None:
            self._send(error_response(self._head.refusal))
            return
        if self._head.headers.get(b"expect", b"").lower() == b"100-continue":
            self._connection.transport.write(CONTINUE)
        self._started = True
        if self._complete:
            self._answering = self._connection.start(self)

    def add_body(self, part: bytes) -> None:
        """Add a part of the body; of one that is too large the rest is dropped, up to a limit."""
        self._body_bytes += len(part)
        if self._body_bytes <= BODY_BYTES_MAX:
            self._body.append(part)
        elif self._body_bytes > DRAINED_BYTES_MAX and self._started:
            self.refuse(body_too_large())

    def complete_body(self) -> None:
        """The body is complete."""
        self._complete = True
        if self._started:
            self._answering = self._connection.start(self)

    def refuse(self, error: GatewayError) -> None:
        """Answer with an error, and close the connection."""
        self.keep_alive = False
        if not self.response_complete:
            self._send(error_response(error))

    def break_off(self, error: GatewayError) -> None:
        """What follows on the connection is not HTTP: ``error`` if that is the request's own body.

        The connection is closed after the answer.
        """
        self.keep_alive = False
        if not self._complete:
            self._head.refusal = error
            if self._started:
                self.refuse(error)

    def disconnect(self) -> None:
        """The client disconnected."""
        self.disconnected = True
        if self._progress is not None:
            self._progress.hung_up = True
        if self._answering is not None:
            self._answering.cancel()

    async def run(self) -> None:
        """Answer the request, whose body is complete."""
        if self._body_bytes > BODY_BYTES_MAX:
            return self.refuse(body_too_large())
        try:
            found = await self._connection.handler.handle(await self._request())
            if isinstance(found, Response):
                return self._send(found)
            return await self._stream(found)
        except GatewayError as error:
            return self._send(error_response(error))
        except asyncio.CancelledError:
            if self.disconnected:
                return None
            self._fail(NoReplica("the gateway stops; ask again", retry_after_s=1))
            raise
        except Exception:
            log.exception("a request failed")
            return self._fail(InternalError("the gateway failed; its log says why"))

    async def _request(self) -> Request:
        head, parts = self._head, self._body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._body = []
        encoding, invalid = head.headers.get(b"content-encoding"), None
        if encoding is not None:  # on a thread: a small body may become one of many megabytes
            try:
                body = await asyncio.to_thread(decompress, body, encoding)
            except GatewayError as error:
                body, invalid = b"", error
        request = read_request(head.path, head.headers, body, key=head.key, tenant=head.tenant)
        request.invalid = invalid or request.invalid
        request.log_id = head.request_id
        self._progress = request.progress
        return request

    # The answer.

    def _send(self, response: Response) -> None:
        if self.disconnected:
            return
        body = response.body
        length = (b"content-length", b"%d" % len(body))
        self._write_head(response.status, (*response.headers, length), body)
        self._end()

    async def _stream(self, stream: StreamingResponse) -> None:
        try:
            headers = (EVENTS, NO_CACHE, *stream.headers)
            chunked = not self._head.http_1_0
            coding = ((b"transfer-encoding", b"chunked"),) if chunked else ()
            self._write_head(200, (*headers, *coding))
            flow, write = self._connection.flow, self._connection.transport.write
            async for chunk in stream:
                if flow.write_paused:
                    await flow.drain()
                write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            if chunked:
                write(b"0\r\n\r\n")
            self._end()
        except asyncio.CancelledError:
            if not self.disconnected:  # the gateway stops
                await stream.abandon()
            raise
        finally:
            await stream.close()

    def _write_head(
        self, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes = b""
    ) -> None:
        self.response_started = True
        lines = [b"%b: %b\r\n" % header for header in self._connection.default_headers]
        lines += [b"%b: %b\r\n" % header for header in (*headers, *self._head.answer_headers)]
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        self._connection.transport.write(b"%b%b\r\n%b" % (_STATUS_LINES[status], head, body))

    def _end(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.on_response_complete()

    def _fail(self, error: GatewayError) -> None:
        """End with an error, or by closing the connection where the answer had started."""
        if self.response_started:
            self._connection.transport.close()
        else:
            self.refuse(error)

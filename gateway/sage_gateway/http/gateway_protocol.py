"""HTTP/1.1 as the gateway serves it: uvicorn's protocol with limits and a short way for inference.

A POST to an inference route becomes an :class:`Exchange`; all other requests are ASGI's.
"""

import asyncio
import logging
from collections import deque
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from sage_gateway.errors import (
    GatewayError,
    HeadTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    RequestTimeout,
)
from sage_gateway.http.answer_headers import id_line, request_id_of
from sage_gateway.http.asgi_app import GatewayApp
from sage_gateway.http.exchange import Exchange, RequestHead
from sage_gateway.openai.routes import is_inference
from sage_gateway.requests.request import NO_HEADERS

log = logging.getLogger("sage.gateway")

HEAD_BYTES_MAX = 64 << 10
#: Headers with which a client offers another protocol.
OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})


class GatewayProtocol(HttpToolsProtocol):
    """One connection; uvicorn makes it with a config whose ``app`` is a :class:`GatewayApp`.

    ``head_s``: time from the first byte of a request to the end of its headers, at most.
    ``silence_s``: time between two parts of a body, at most.
    """

    head_s = 10.0
    silence_s = 30.0
    #: The last request: an Exchange, or uvicorn's object for ASGI.
    cycle: Any
    pipeline: deque[Any]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._gateway = cast(GatewayApp, config.app)
        self._deadlines = self._gateway.deadlines(self.loop)
        self._received_bytes = 0  # of the request that is arriving
        self._in_head = True
        self._running: Exchange | None = None
        self._is_broken = False  # after what is not HTTP
        self.handler = self._gateway.handler

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every answer."""
        return self.server_state.default_headers

    # Called by the event loop.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        self._deadlines.add(self, self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client disconnected: what runs for it is cancelled."""
        self._deadlines.drop(self)
        if self._running is not None:
            self._running.disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes arrived: a part of a request, or several requests."""
        if self.transport.is_closing() or self._is_broken:
            return
        self._received_bytes += len(data)
        self._feed(data)
        self._set_deadline(len(data))

    def _feed(self, data: bytes) -> None:
        try:
            while data:
                data = self._parse(data)
        except httptools.HttpParserCallbackError:
            log.exception("a connection failed")
            self.transport.close()
        except httptools.HttpParserError as error:
            self._refuse(InvalidRequest(f"not HTTP/1.1: {error}", code="invalid_http"))

    def _parse(self, data: bytes) -> bytes:
        """Parse ``data``; what is to be parsed next.

        A request that offers another protocol is parsed again without the offer, because the parser
        takes its body for the other protocol. Java's client offers HTTP/2 by default.
        """
        try:
            self.parser.feed_data(data)
            return b""
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(MethodNotAllowed("this is no proxy"))
            return b""
        lines = [b"%b %b HTTP/1.1" % (method, self.url)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in OFFER]
        return b"\r\n".join([*lines, b"", rest])

    def _set_deadline(self, new_bytes: int) -> None:
        """Set the deadline for the next byte, or drop it where the gateway has to act next."""
        if not self._received_bytes:  # the usual case: the request is complete
            if self._is_busy():
                self._deadlines.drop(self)
        elif not self._in_head:
            self._deadlines.add(self, self.silence_s, self._time_out)
        elif self._received_bytes > HEAD_BYTES_MAX:
            self._refuse(_head_too_large())
        elif self._received_bytes == new_bytes:
            self._deadlines.add(self, self.head_s, self._time_out)

    def _time_out(self) -> None:
        if self._in_head and self._is_busy():  # a part of a pipelined request
            self._deadlines.add(self, self.head_s, self._time_out)
        elif self._running is self.cycle and self._running is not None:
            self._running.refuse(_timeout())
        else:
            self._refuse(_timeout())

    # Called by the parser.

    def on_headers_complete(self) -> None:
        """The head of a request is complete."""
        if self.parser.should_upgrade():
            return
        self._in_head = False
        head = self._read_head()
        if head is None:
            super().on_headers_complete()
            return
        is_busy = self._is_busy()
        head.http_1_0 = self.parser.get_http_version() == "1.0"
        keep_alive = bool(head.path) and not head.http_1_0 and self.parser.should_keep_alive()
        exchange = self.cycle = Exchange(self, head, keep_alive=keep_alive)
        if is_busy:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))
        else:
            self._start_asgi_task(exchange, self.app)

    def _read_head(self) -> RequestHead | None:
        """The head of a request that is not ASGI's; without a path if it cannot be read."""
        path = _path_of(self.url)
        if path is None:
            return _refusal_head(InvalidRequest("the URL is invalid", code="invalid_http"))
        if self._received_bytes > HEAD_BYTES_MAX and self._head_bytes() > HEAD_BYTES_MAX:
            return _refusal_head(_head_too_large())
        if is_inference(path) and self.parser.get_method() == b"POST":
            return self._gateway.read_head(path, dict(self.headers))
        return None

    def on_body(self, body: bytes) -> None:
        """A part of a request's body."""
        if not isinstance(self.cycle, Exchange):
            super().on_body(body)
        elif not self.cycle.response_complete:
            self.cycle.add_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        if self.parser.should_upgrade():
            return
        self._received_bytes, self._in_head = 0, True
        if not isinstance(self.cycle, Exchange):
            super().on_message_complete()
        elif not self.cycle.response_complete:
            self.cycle.complete_body()

    # Called by exchanges and by uvicorn.

    def start(self, exchange: Exchange) -> "asyncio.Task[None]":
        """Run ``exchange`` in a task that uvicorn waits for when it stops."""
        task = self.loop.create_task(exchange.run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def on_response_complete(self) -> None:
        """Answer the next request of the pipeline, or wait for one."""
        self._running = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._deadlines.add(self, self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Exchange):
            self._running = cycle
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    def _should_upgrade(self) -> bool:
        return False

    def _refuse(self, error: GatewayError) -> None:
        """Answer what is not a request with an error, and close the connection.

        Earlier requests are answered first, and what follows on the connection is not read.
        """
        last = self.cycle if self._is_busy() else None
        if last is None:
            self.cycle = Exchange(self, _refusal_head(error), keep_alive=False)
            self.cycle.begin()
        elif not isinstance(last, Exchange):
            self.transport.close()
        else:
            self._is_broken = True
            last.break_off(error)

    def _is_busy(self) -> bool:
        """Whether the last request is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)


@lru_cache(maxsize=4096)
def _path_of(url: bytes) -> str | None:
    """The path in a request line, without escapes; None if the URL is invalid."""
    try:
        raw: bytes = httptools.parse_url(url).path
    except httptools.HttpParserInvalidURLError:
        return None
    return unquote(raw.decode("ascii", "replace"))


def _refusal_head(error: GatewayError) -> RequestHead:
    """The head of what cannot be read."""
    request_id = request_id_of(NO_HEADERS)
    return RequestHead(answer_headers=(id_line(request_id),), refusal=error)


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"the request line and the headers are larger than {HEAD_BYTES_MAX} bytes")


def _timeout() -> RequestTimeout:
    return RequestTimeout("the request did not arrive in time; send it again")

"""ASGI application: checks the API key, reads inference requests, leaves the rest to FastAPI.

A plain callable, because routing and middleware of a framework took a third of the throughput and
most of the tail latency. When a client disconnects its work is cancelled and the engine's request
aborted, except a request with an id (see :mod:`sage_gateway.idempotency.in_flight_calls`).
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from sage_gateway.errors import GatewayError, MethodNotAllowed, TooLarge
from sage_gateway.http.batches_api import FILES
from sage_gateway.http.keys_api import KEY, TENANT
from sage_gateway.openai.routes import is_inference
from sage_gateway.openai.schema import BODY_BYTES_MAX
from sage_gateway.requests.request import Handler, Request, read_request
from sage_gateway.requests.response import EVENTS, Response, StreamingResponse, error_response
from sage_gateway.runtime.deadlines import Deadlines
from sage_gateway.tenants import Tenants
from sage_gateway.tenants.scopes import OPEN
from sage_gateway.tenants.tenants import tenant_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LISTEN_AFTER_S = 0.05
DRAINED_BYTES_MAX = 4 * BODY_BYTES_MAX
#: The parts of a form around the file that is uploaded.
FORM_BYTES_MAX = 64 << 10


class _Disconnected(Exception):  # noqa: N818 - raised and caught in this module
    """The client disconnected."""


class GatewayApp:
    """One gateway as an ASGI callable.

    ``handler`` answers the inference routes, ``admin`` all others and the lifespan.
    """

    def __init__(
        self, tenants: Tenants, handler: Handler, admin: App, *, file_bytes_max: int
    ) -> None:
        self._tenants = tenants
        self._handler = handler
        self._admin = admin
        self._upload_bytes_max = file_bytes_max + FORM_BYTES_MAX
        self._deadlines: Deadlines | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "lifespan":
            return await self._admin(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        path = scope["path"]
        headers = dict(scope["headers"])
        if path not in OPEN:
            try:
                key = self._tenants.admit(path, headers)
            except GatewayError as error:
                return await _send(send, error_response(error))
            scope[KEY], scope[TENANT] = key, tenant_of(key, headers)
        if not is_inference(path):
            bytes_max = self._upload_bytes_max if path == FILES else BODY_BYTES_MAX
            return await self._admin(scope, _limit_body(receive, bytes_max), send)
        if scope["method"] != "POST":
            return await _send(send, _only_post(path))
        try:
            body = await _body(receive)
        except GatewayError as error:
            return await _send(send, error_response(error), close=True)
        except _Disconnected:
            return None
        request = read_request(path, headers, body, key=scope[KEY], tenant=scope[TENANT])
        return await self._answer(request, receive, send)

    async def _answer(self, request: Request, receive: Receive, send: Send) -> None:
        """Answer ``request``; when the client disconnects, the work is cancelled."""
        task = asyncio.current_task()
        assert task is not None
        if self._deadlines is None:
            self._deadlines = Deadlines(asyncio.get_running_loop(), LISTEN_AFTER_S)
        client = _Client(task, receive)
        # A task that listens costs as much as recording the answer; most answers end before it.
        self._deadlines.add(client, LISTEN_AFTER_S, client.listen)
        try:
            await self._respond(request, client, send)
        except asyncio.CancelledError:
            if not client.disconnected:
                raise
            task.uncancel()
        finally:
            self._deadlines.drop(client)
            client.close()

    async def _respond(self, request: Request, client: "_Client", send: Send) -> None:
        try:
            found = await self._handler.handle(request)
        except GatewayError as error:
            return await _send(send, error_response(error))
        if isinstance(found, Response):
            return await _send(send, found)
        try:
            return await _send_stream(send, found)
        except asyncio.CancelledError:
            if not client.disconnected:  # the gateway stops
                await found.abandon()
            raise
        finally:
            await found.close()


class _Client:
    """Cancels the task that answers a client when the client disconnects."""

    __slots__ = ("_event", "_receive", "disconnected", "task")

    def __init__(self, task: "asyncio.Task[Any]", receive: Receive) -> None:
        self.task = task
        self.disconnected = False
        self._receive = receive
        self._event: asyncio.Future[MutableMapping[str, Any]] | None = None

    def listen(self) -> None:
        """Listen from now on; the body was read, so the only event to come is the disconnect."""
        self._event = asyncio.ensure_future(self._receive())
        self._event.add_done_callback(self._disconnect)

    def close(self) -> None:
        """Stop listening."""
        if self._event is not None:
            self._event.remove_done_callback(self._disconnect)
            self._event.cancel()

    def _disconnect(self, _: object) -> None:
        self.disconnected = True
        self.task.cancel()


async def _body(receive: Receive) -> bytes:
    """The whole body.

    Raises:
        TooLarge: the rest of the body was read and dropped, so that a client that is still sending
            can read the answer.
        _Disconnected: the client disconnected while sending.
    """
    event = await receive()
    if event["type"] == "http.request" and not event.get("more_body"):
        whole: bytes = event.get("body", b"")
        if len(whole) > BODY_BYTES_MAX:
            raise _too_large()
        return whole
    parts: list[bytes] = []
    size = 0
    while True:
        if event["type"] == "http.disconnect":
            raise _Disconnected
        part = event.get("body", b"")
        size += len(part)
        if size <= BODY_BYTES_MAX:
            parts.append(part)
        elif size > DRAINED_BYTES_MAX:
            raise _too_large()
        if not event.get("more_body"):
            break
        event = await receive()
    if size > BODY_BYTES_MAX:
        raise _too_large()
    return b"".join(parts)


def _only_post(path: str) -> Response:
    answer = error_response(MethodNotAllowed(f"{path} takes POST only"))
    return Response(answer.status, answer.body, (*answer.headers, (b"allow", b"POST")))


def _too_large() -> TooLarge:
    message = f"the body is larger than {BODY_BYTES_MAX} bytes"
    return TooLarge(message, code="body_too_large")


def _limit_body(receive: Receive, bytes_max: int) -> Receive:
    """``receive`` for bodies of at most ``bytes_max``; of a larger one the rest is dropped.

    It then raises the framework's own error, because FastAPI turns all others into a 400.
    """
    size = 0

    async def receive_limited() -> MutableMapping[str, Any]:
        nonlocal size
        while True:
            event = await receive()
            size += len(event.get("body", b""))
            if size <= bytes_max:
                return event
            if not event.get("more_body") or size > bytes_max + DRAINED_BYTES_MAX:
                raise HTTPException(413, f"the body is larger than {bytes_max} bytes")

    return receive_limited


async def _send(send: Send, answer: Response, *, close: bool = False) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    headers += [(b"connection", b"close")] if close else []
    start = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})


async def _send_stream(send: Send, stream: StreamingResponse) -> None:
    headers = [EVENTS, (b"cache-control", b"no-cache"), *stream.headers]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for chunk in stream:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})

"""The ASGI application: the key first, then the hot routes, then FastAPI for everything else.

A plain callable, because routing and middleware of a framework cost a third of the throughput and
most of the tail. A caller who hangs up cancels the work: the engine's request is aborted, but for
one that named an id (see :mod:`sage_gateway.idempotency.in_flight_calls`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from sage_gateway.errors import GatewayError, MethodNotAllowed, TooLarge
from sage_gateway.http.batches_api import FILES
from sage_gateway.http.keys_api import KEY
from sage_gateway.inference.request_pipeline import Accounted
from sage_gateway.inference.service import Service
from sage_gateway.openai.schema import BODY_BYTES_MAX
from sage_gateway.requests.response import EVENTS, Answer, Stream, refused
from sage_gateway.runtime.deadlines import Deadlines
from sage_gateway.tenants import Tenants
from sage_gateway.tenants.scopes import OPEN

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LISTEN_AFTER_S = 0.05
DRAINED_BYTES_MAX = 4 * BODY_BYTES_MAX
#: What stands around a file in an upload.
FORM_BYTES_MAX = 64 << 10


class Gone(Exception):  # noqa: N818 - not an error of ours
    """The caller hung up."""


class Front:
    """One gateway as an ASGI callable."""

    def __init__(self, tenants: Tenants, service: Service, accounted: Accounted, cold: App) -> None:
        self._tenants = tenants
        self._service = service
        self._accounted = accounted
        self._cold = cold
        self._upload_max = service.pool.spec.batches.file_bytes_max + FORM_BYTES_MAX
        self._unheard: Deadlines | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; lifespan goes to the cold application."""
        if scope["type"] == "lifespan":
            return await self._cold(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        path = scope["path"]
        if path not in OPEN:
            try:
                scope[KEY] = self._tenants.admit(path, scope["headers"])
            except GatewayError as error:
                return await _send(send, refused(error))
        if not self._service.serves(path):
            most = self._upload_max if path == FILES else BODY_BYTES_MAX
            return await self._cold(scope, _bounded(receive, most), send)
        if scope["method"] != "POST":
            return await _send(send, _only_post(path))
        try:
            body = await _body(scope, receive)
            await self._while_listening(receive, self._answer(scope, path, body, send))
        except GatewayError as error:
            await _send(send, refused(error), close=True)
        except Gone:
            return None

    async def _while_listening(self, receive: Receive, work: Coroutine[Any, Any, None]) -> None:
        """Do the work here; cancel it when the caller hangs up.

        Raises:
            Gone: the caller did.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._unheard is None:
            self._unheard = Deadlines(asyncio.get_running_loop(), LISTEN_AFTER_S)
        caller = _Caller(task, receive)
        # A task to listen costs as much as the ledger; most answers are there before it is needed.
        self._unheard.add(caller, LISTEN_AFTER_S, caller.listen)
        try:
            await work
        except asyncio.CancelledError:
            if not caller.gone:
                raise
            task.uncancel()
            raise Gone from None
        finally:
            self._unheard.drop(caller)
            caller.close()

    async def _answer(self, scope: Scope, path: str, body: bytes, send: Send) -> None:
        found = await self._accounted.answer(scope[KEY], path, scope["headers"], body)
        if isinstance(found, Answer):
            return await _send(send, found)
        try:
            await _send_stream(send, found)
        finally:
            await found.close()


class _Caller:
    """Whom a task answers; it is cancelled when they hang up."""

    __slots__ = ("_ears", "_receive", "gone", "task")

    def __init__(self, task: "asyncio.Task[Any]", receive: Receive) -> None:
        self.task = task
        self.gone = False
        self._receive = receive
        self._ears: asyncio.Future[MutableMapping[str, Any]] | None = None

    def listen(self) -> None:
        """From now on; nothing more is to come from them but the end."""
        self._ears = asyncio.ensure_future(self._receive())
        self._ears.add_done_callback(self._hung_up)

    def close(self) -> None:
        """They have their answer."""
        if self._ears is not None:
            self._ears.remove_done_callback(self._hung_up)
            self._ears.cancel()

    def _hung_up(self, _: object) -> None:
        self.gone = True
        self.task.cancel()


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The whole body.

    Raises:
        TooLarge: what came too much was read and dropped, so that the caller, still sending, gets
            to see the answer.
        Gone: the caller hung up while sending.
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
            raise Gone
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


def _only_post(path: str) -> Answer:
    answer = refused(MethodNotAllowed(f"{path} takes POST only"))
    return Answer(answer.status, answer.body, (*answer.headers, (b"allow", b"POST")))


def _too_large() -> GatewayError:
    message = f"the body is larger than {BODY_BYTES_MAX} bytes"
    return TooLarge(message, code="body_too_large")


def _bounded(receive: Receive, bytes_max: int) -> Receive:
    """The same; of a body with more than ``bytes_max`` the rest is dropped, then a 413 is raised.

    A framework's own kind of error, because FastAPI makes a 400 of all others.
    """
    size = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal size
        while True:
            event = await receive()
            size += len(event.get("body", b""))
            if size <= bytes_max:
                return event
            if not event.get("more_body") or size > bytes_max + DRAINED_BYTES_MAX:
                raise HTTPException(413, f"the body is larger than {bytes_max} bytes")

    return counted


async def _send(send: Send, answer: Answer, *, close: bool = False) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    headers += [(b"connection", b"close")] if close else []
    start = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})


async def _send_stream(send: Send, stream: Stream) -> None:
    headers = [EVENTS, (b"cache-control", b"no-cache"), *stream.headers]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for chunk in stream.chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})

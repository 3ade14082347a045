"""ASGI application: checks the API key and leaves the rest to FastAPI, except inference."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from sage_gateway.errors import GatewayError, MethodNotAllowed, MissingScope
from sage_gateway.http.answer_headers import READS, Lines, Origins, id_line, request_id_of
from sage_gateway.http.batches_api import FILES
from sage_gateway.http.exchange import DRAINED_BYTES_MAX, RequestHead
from sage_gateway.http.keys_api import KEY, TENANT
from sage_gateway.openai.routes import is_inference
from sage_gateway.openai.schema import BODY_BYTES_MAX
from sage_gateway.requests.request import Handler, Headers
from sage_gateway.requests.response import Response, error_response
from sage_gateway.runtime.deadlines import Deadlines
from sage_gateway.tenants import Tenants
from sage_gateway.tenants.keys import Key, is_basic
from sage_gateway.tenants.scopes import OPEN
from sage_gateway.tenants.tenants import tenant_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DEADLINE_DELAY_S_MAX = 0.5
#: The parts of a form around the file that is uploaded.
FORM_BYTES_MAX = 64 << 10


class GatewayApp:
    """One gateway.

    ``handler`` answers the inference routes, whose requests the connection reads itself. All others
    and the lifespan are calls of this object, which ``admin`` answers.
    """

    def __init__(
        self,
        tenants: Tenants,
        handler: Handler,
        admin: App,
        *,
        file_bytes_max: int,
        origins: Collection[str] = (),
    ) -> None:
        self._tenants = tenants
        self.handler = handler
        self._admin = admin
        self._upload_bytes_max = file_bytes_max + FORM_BYTES_MAX
        self._origins = Origins(origins)
        self._deadlines: Deadlines | None = None

    def deadlines(self, loop: asyncio.AbstractEventLoop) -> Deadlines:
        """The deadlines of all connections on ``loop``, which serves this gateway."""
        if self._deadlines is None:
            self._deadlines = Deadlines(loop, DEADLINE_DELAY_S_MAX)
        return self._deadlines

    def read_head(self, path: str, headers: Headers) -> RequestHead:
        """The head of a POST to an inference route, with its key and tenant or its refusal."""
        request_id = request_id_of(headers)
        lines = (id_line(request_id), *self._origins.lines(headers))
        try:
            key = self._admit("POST", path, headers)
        except GatewayError as error:
            return RequestHead(path, answer_headers=lines, refusal=error)
        return RequestHead(path, headers, key, tenant_of(key, headers), request_id, lines)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "lifespan":
            return await self._admin(scope, receive, send)
        path, method = scope["path"], scope["method"]
        headers = dict(scope["headers"])
        more = id_line(request_id_of(headers)), *self._origins.lines(headers)
        send = _with_headers(send, more)
        if method == "OPTIONS" and (answer := self._origins.preflight(headers)):
            return await _send(send, answer)
        if path not in OPEN:
            try:
                key = self._admit(method, path, headers)
            except GatewayError as error:
                return await _send(send, error_response(error))
            scope[KEY], scope[TENANT] = key, tenant_of(key, headers)
        if is_inference(path):  # a POST is answered by the connection itself
            return await _send(send, _only_post(path))
        if method == "HEAD":  # the server drops the body
            scope = {**scope, "method": "GET"}
        bytes_max = self._upload_bytes_max if path == FILES else BODY_BYTES_MAX
        return await self._admin(scope, _limit_body(receive, bytes_max), send)

    def _admit(self, method: str, path: str, headers: Headers) -> Key:
        """The key of a request.

        A Content-Type is not looked at here: a page of another site has no key to send, so refusing
        the types that it may send would protect nothing. A form is refused where the body is read,
        as its sender did not mean JSON; ``text/plain`` or no type at all is read as JSON.

        Raises:
            InvalidKey, MissingScope: as :meth:`Tenants.admit`; or a page of another site could have
                sent the request with the key that the browser keeps.
        """
        key = self._tenants.admit(path, headers)
        if method not in READS and is_basic(headers):
            why = f"{method} needs 'Authorization: Bearer KEY'; Basic is for pages that are read"
            raise MissingScope(why, code="basic_is_for_reading")
        return key


def _only_post(path: str) -> Response:
    answer = error_response(MethodNotAllowed(f"{path} takes POST only"))
    return Response(answer.status, answer.body, (*answer.headers, (b"allow", b"POST")))


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


def _with_headers(send: Send, more: Lines) -> Send:
    async def send_more(event: MutableMapping[str, Any]) -> None:
        if event["type"] == "http.response.start":
            event["headers"] = [*event["headers"], *more]
        await send(event)

    return send_more


async def _send(send: Send, answer: Response) -> None:
    length = (b"content-length", b"%d" % len(answer.body))
    headers = [*answer.headers, *([] if answer.status == 204 else [length])]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})

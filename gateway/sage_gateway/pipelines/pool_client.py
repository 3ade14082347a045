"""The pool as a served pipeline calls it: in this process, without a socket and without a key."""

from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

import orjson

from sage_flink.common import PoolError
from sage_flink.common.openai import retry_after_s
from sage_flink.flow import Reply
from sage_gateway.errors import GatewayError
from sage_gateway.openai.engine_answer import tokens
from sage_gateway.openai.error_table import status_of
from sage_gateway.openai.routes import is_inference
from sage_gateway.requests.request import Handler, Request, read_request
from sage_gateway.requests.response import Response, StreamingResponse, error_response

CHAT = "/v1/chat/completions"
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
#: Headers of the client's request that its pipeline's calls inherit.
INHERITED = (b"x-sage-priority", b"x-sage-deadline-ms", b"x-sage-job", b"x-session-id")


class PoolClient:
    """Sends a pipeline's calls on behalf of ``parent``, the client's request.

    Calls bypass idempotency, whatever ids they carry: a pipeline makes new ids for each question,
    and the answer that is recorded is its own, under the client's id. They are queued and routed
    like the client's own calls: with its tenant, priority, deadline and session. ``options`` are
    fields for every chat among them. ``used``: the tokens of all calls so far, ``in`` and ``out``.
    """

    def __init__(
        self, inference: Handler, parent: Request, options: Mapping[str, Any] = NO_OPTIONS
    ) -> None:
        self.used: dict[str, int] = {}
        self._inference = inference
        self._parent = parent
        self._options = options

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The reply; an error is one too. A body with ``stream: true`` gives all events at once."""
        if not is_inference(path):
            error = {"message": f"no route {path}", "code": None}
            return Reply(404, orjson.dumps({"error": error}))
        try:
            found = await self._send(path, body, headers)
        except GatewayError as error:
            return _reply(error_response(error))
        if isinstance(found, Response):
            self._count(found.body)
            return _reply(found)
        try:
            events = b"".join([chunk async for chunk in found])
        finally:
            await found.close()
        self._count(events)
        return Reply(200, events)

    async def stream(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """The events of the answer, whole ones, as they arrive.

        Raises:
            PoolError: the request is not answered; ``status`` is the error's.
        """
        try:
            found = await self._send(path, body, headers)
        except GatewayError as error:
            raise PoolError(str(error), status=status_of(error)) from error
        if isinstance(found, Response):
            self._count(found.body)
            yield found.body
            return
        try:
            async for chunk in found:
                self._count(chunk)
                yield chunk
        finally:
            await found.close()

    async def _send(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Response | StreamingResponse:
        parent = self._parent
        own = {name.encode(): value.encode() for name, value in headers.items()}
        own |= {name: parent.headers[name] for name in INHERITED if name in parent.headers}
        if parent.traceparent:
            own[b"traceparent"] = parent.traceparent.encode()
        if self._options and path == CHAT:
            body = orjson.dumps({**orjson.loads(body), **self._options})
        return await self._inference.handle(read_request(path, own, body, tenant=parent.tenant))

    def _count(self, body: bytes) -> None:
        for direction, count in tokens(body).items():
            self.used[direction] = self.used.get(direction, 0) + count


def _reply(found: Response) -> Reply:
    shown = dict(found.headers).get(b"retry-after", b"")
    return Reply(found.status, found.body, retry_after_s(shown.decode("ascii", "replace")))

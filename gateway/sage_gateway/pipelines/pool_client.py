"""The pool as a served pipeline calls it: in this process, without a socket and without a key."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
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
from sage_gateway.tenants.cost import prompt_likely

CHAT = "/v1/chat/completions"
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
#: Headers of the client's request that its pipeline's calls inherit.
INHERITED = (
    b"x-sage-priority",
    b"x-sage-deadline-ms",
    b"x-sage-soft-deadline-ms",
    b"x-sage-job",
    b"x-session-id",
)


class PoolClient:
    """Sends a pipeline's calls on behalf of ``parent``, the client's request.

    Calls bypass idempotency, whatever ids they carry: a pipeline makes new ids for each question,
    and the answer that is recorded is its own, under the client's id. They are queued and routed
    like the client's own calls: with its tenant, priority, deadline and session. ``options`` are
    fields for every chat among them. ``used``: the tokens of all calls so far, ``in`` and ``out``,
    which are also the progress of ``parent``.
    """

    def __init__(
        self, inference: Handler, parent: Request, options: Mapping[str, Any] = NO_OPTIONS
    ) -> None:
        self.used = parent.progress.used
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
        events = b"".join([chunk async for chunk in self._events(found, body)])
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
            raise PoolError(str(error), status=status_of(error), code=error.code or "") from error
        if isinstance(found, Response):
            self._count(found.body)
            yield found.body
            return
        async with contextlib.aclosing(self._events(found, body)) as events:
            async for chunk in events:
                yield chunk

    async def _events(self, found: StreamingResponse, body: bytes) -> AsyncGenerator[bytes, None]:
        """The events; those until the client disconnected are counted as a token each."""
        count, has_usage = 0, False
        try:
            async for chunk in found:
                count += chunk.count(b"\n\n")
                has_usage |= self._count(chunk)
                yield chunk
        finally:
            await found.close()
            if self._parent.progress.hung_up and count and not has_usage:
                self._parent.progress.add({"in": prompt_likely(body), "out": count})

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
        request = read_request(path, own, body, tenant=parent.tenant)
        request.progress = parent.progress
        return await self._inference.handle(request)

    def _count(self, body: bytes) -> bool:
        """Count the tokens that an answer or some events report; whether they report any."""
        used = tokens(body)
        self._parent.progress.add(used)
        return bool(used)


def _reply(found: Response) -> Reply:
    shown = dict(found.headers).get(b"retry-after", b"")
    return Reply(found.status, found.body, retry_after_s(shown.decode("ascii", "replace")))

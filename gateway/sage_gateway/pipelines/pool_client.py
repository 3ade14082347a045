"""The pool as a mounted pipeline sees it: the routes without the socket and without the key."""

from collections.abc import AsyncIterator, Mapping

import orjson

from sage_flink.common import PoolError
from sage_flink.common.openai import retry_after_s
from sage_flink.flow import Reply
from sage_gateway.inference.service import Service
from sage_gateway.pipelines.registry import ASKER, Asker
from sage_gateway.requests.response import Answer, Stream


class Transport:
    """Calls in this process. Paths are those of HTTP; mounted pipelines are not among the models,

    so that none can call itself. Calls go around the ledger, whatever ids they carry: a pipeline
    makes ids anew for each question, and the answer kept is its own, under its caller's id. They
    wait and are routed as their caller's own would: with its tenant, priority, deadline, session.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The answer. Of ``headers`` those for scheduling are read, and ``x-request-id``.

        A body with ``stream: true`` gives all its events at once.
        """
        if not self._service.serves(path):
            return Reply(
                404, orjson.dumps({"error": {"message": f"no route {path}", "code": None}})
            )
        found = await self._asked(path, body, headers)
        if isinstance(found, Answer):
            return Reply(found.status, found.body, _retry_after_s(found))
        try:
            return Reply(200, b"".join([chunk async for chunk in found.chunks]))
        finally:
            await found.close()

    async def stream(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """The events of the answer, whole ones, as they come.

        Raises:
            PoolError: the answer is an error; ``status`` is its status.
        """
        found = await self._asked(path, body, headers)
        if isinstance(found, Answer):
            if found.status != 200:
                message = orjson.loads(found.body)["error"]["message"]
                raise PoolError(message, status=found.status)
            yield found.body
            return
        try:
            async for chunk in found.chunks:
                yield chunk
        finally:
            await found.close()

    async def _asked(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer | Stream:
        asker = ASKER.get() or Asker()
        told = {name.encode(): value.encode() for name, value in headers.items()}
        told.update(asker.headers)
        return await self._service.answer(
            path,
            body,
            request_id=headers.get("x-request-id", ""),
            headers=list(told.items()),
            tenant=asker.tenant,
            mounted=False,
        )


def _retry_after_s(answer: Answer) -> float:
    named = dict(answer.headers).get(b"retry-after", b"")
    return retry_after_s(named.decode("ascii", "replace"))

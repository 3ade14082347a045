"""The handlers of a request in their order: caches, idempotency, quota, inference."""

from typing import Protocol

from sage_gateway.errors import GatewayError, InvalidKey
from sage_gateway.observability.request_tracker import RequestTracking
from sage_gateway.openai.error_table import status_of
from sage_gateway.requests.request import Handler, Request, read_request
from sage_gateway.requests.response import Response, StreamingResponse, error_response
from sage_gateway.tenants import Keys


class RequestPipeline:
    """Handler of every request that has an API key.

    ``first`` is the outermost handler, ``inference`` the innermost. A request that cannot be read
    skips the handlers between them. Inference tracks the requests that reach it; an error of a
    handler before it is tracked here.
    """

    def __init__(self, first: Handler, inference: Handler, tracking: RequestTracking) -> None:
        self._first = first
        self._inference = inference
        self._tracking = tracking

    async def handle(self, request: Request) -> Response | StreamingResponse:
        """The answer.

        Raises:
            GatewayError: the request is not answered.
        """
        handler = self._first if request.invalid is None else self._inference
        try:
            return await handler.handle(request)
        except GatewayError as error:
            if not request.tracked:
                self._tracking.begin(request).end(status_of(error))
            raise


class Owner(Protocol):
    """Background work: its tenant, and the id of the API key that its requests are sent with."""

    @property
    def tenant(self) -> str:
        """The tenant."""
        ...

    @property
    def key(self) -> str:
        """The id of the key."""
        ...


class BackgroundRequests:
    """Sends the requests of background work, such as the lines of batches, through the pipeline.

    ``job``: its name in the usage.
    """

    def __init__(self, keys: Keys, handler: Handler, *, job: str) -> None:
        self._keys = keys
        self._handler = handler
        self._job = job.encode()

    async def answer(self, owner: Owner, path: str, request_id: str, body: bytes) -> Response:
        """The answer to a request, as background work of its owner; an error is one too."""
        key = self._keys.by_id(owner.key)
        if key is None:
            return error_response(InvalidKey("the key of this work was revoked"))
        headers = {
            b"x-request-id": request_id.encode(),
            b"x-sage-tenant": owner.tenant.encode(),
            b"x-sage-priority": b"background",
            b"x-sage-job": self._job,
        }
        request = read_request(path, headers, body, key=key, tenant=owner.tenant)
        try:
            found = await self._handler.handle(request)
        except GatewayError as error:
            return error_response(error)
        assert isinstance(found, Response), "a request for a stream is refused before"
        return found

"""The handlers of a request in their order: caches, idempotency, quota, inference."""

from sage_gateway.batches.batch_store import OwnedBatch
from sage_gateway.errors import GatewayError, InvalidKey
from sage_gateway.observability.request_tracker import RequestTracking
from sage_gateway.openai.error_table import status_of
from sage_gateway.requests.request import Handler, Request, read_request
from sage_gateway.requests.response import Response, StreamingResponse, error_response
from sage_gateway.tenants import Keys

BATCH_JOB = b"batches"


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


class BatchRequests:
    """Sends the lines of batches through the request pipeline."""

    def __init__(self, keys: Keys, handler: Handler) -> None:
        self._keys = keys
        self._handler = handler

    async def answer(self, owned: OwnedBatch, path: str, request_id: str, body: bytes) -> Response:
        """The answer to a line, as background work of its tenant and key; an error is one too."""
        key = self._keys.by_id(owned.key)
        if key is None:
            return error_response(InvalidKey("the key of this batch was revoked"))
        headers = {
            b"x-request-id": request_id.encode(),
            b"x-sage-tenant": owned.tenant.encode(),
            b"x-sage-priority": b"background",
            b"x-sage-job": BATCH_JOB,
        }
        request = read_request(path, headers, body, key=key, tenant=owned.tenant)
        try:
            found = await self._handler.handle(request)
        except GatewayError as error:
            return error_response(error)
        assert isinstance(found, Response), "a line that asks for a stream is refused before"
        return found

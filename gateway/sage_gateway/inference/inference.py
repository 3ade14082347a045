"""Inference: the innermost handler. Finds what answers a request, and tracks its outcome."""

from functools import partial

from sage_gateway.errors import NotFound
from sage_gateway.inference.model_inference import ModelInference
from sage_gateway.observability.request_tracker import (
    CLIENT_CLOSED,
    RequestTracker,
    RequestTracking,
)
from sage_gateway.openai.error_table import status_of
from sage_gateway.openai.foreign_errors import gateway_error
from sage_gateway.openai.schema import (
    ChatRequest,
    GenerationRequest,
    ResponsesRequest,
    SearchRequest,
)
from sage_gateway.openai.stream_usage import place_usage
from sage_gateway.pipelines.registry import ServedPipelines
from sage_gateway.requests.request import Request
from sage_gateway.requests.response import Response, StreamingResponse
from sage_gateway.vector_stores.search import VectorSearch


class Inference:
    """Handler that answers by a model, and where given by a search or a served pipeline."""

    def __init__(
        self,
        tracking: RequestTracking,
        models: ModelInference,
        *,
        search: VectorSearch | None = None,
        pipelines: ServedPipelines | None = None,
    ) -> None:
        self._tracking = tracking
        self._models = models
        self._search = search
        self._pipelines = pipelines

    async def handle(self, request: Request) -> Response | StreamingResponse:
        """The answer. Its outcome is reported once: that of a stream when its last byte was read.

        A whole answer to a request with an API key is still to be charged, which may fail: the
        quota reports its outcome, by :meth:`Request.end`.

        Raises:
            GatewayError: the request is not answered.
        """
        tracker = self._tracking.begin(request)
        try:
            found = await self._answer(request, tracker)
        except Exception as error:
            known = gateway_error(error)
            tracker.end(status_of(known))
            if known is error:
                raise
            raise known from error
        except BaseException:
            tracker.end(CLIENT_CLOSED)
            raise
        if isinstance(found, StreamingResponse):
            tracker.first_bytes()
            found.observe(tracker)
            if request.key is not None and isinstance(request.payload, GenerationRequest):
                found.convert_chunks(partial(place_usage, request.payload))
        elif request.key is None:  # a call of a search or a pipeline
            tracker.end(found.status, found.used)
        else:
            request.reporter = tracker
        return found

    async def _answer(
        self, request: Request, tracker: RequestTracker
    ) -> Response | StreamingResponse:
        payload = request.payload
        if payload is None:
            assert request.invalid is not None
            raise request.invalid
        if isinstance(payload, ResponsesRequest):  # clients' are chats here
            raise NotFound(f"a call inside of the gateway cannot use {request.path}")
        if isinstance(payload, SearchRequest):
            assert self._search is not None
            return await self._search.answer(request, payload)
        if self._pipelines is not None and isinstance(payload, ChatRequest):
            pipeline = self._pipelines.find(payload.model)
            if pipeline is not None:
                tracker.model = payload.model
                return await self._pipelines.answer(pipeline, request, payload)
        return await self._models.answer(request, payload, tracker)

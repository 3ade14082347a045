"""A request on its way to a replica."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from sage_gateway.forwarding.replica_call import AbortedCall
from sage_gateway.models.model import Model
from sage_gateway.openai.logprobs import LogprobForm
from sage_gateway.requests.request import Request
from sage_gateway.routing import RoutingHints

HEADERS: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})


class Outbound(NamedTuple):
    """A request on its way to a replica of ``model``; ``hints`` are those for routing.

    ``joined``: the answer is a stream to be joined, of this many choices for each prompt; 0 if not.
    ``aborted``: set when the request is cancelled; how far it was at an engine. ``logprobs``: the
    form of its log probabilities, where the engine has another one.
    """

    model: Model
    path: str
    body: bytes
    headers: Mapping[str, str]
    stream: bool
    hints: RoutingHints
    joined: int
    aborted: AbortedCall
    logprobs: LogprobForm | None

    @classmethod
    def of(
        cls,
        model: Model,
        request: Request,
        body: bytes,
        *,
        stream: bool,
        joined: int = 0,
        logprobs: LogprobForm | None = None,
    ) -> "Outbound":
        """``request`` with ``body``, in which the model has the name that the engine knows."""
        headers = HEADERS
        if request.request_id:
            headers = {**headers, "x-request-id": request.request_id}
        if request.traceparent:
            headers = {**headers, "traceparent": request.traceparent}
        hints = model.router.hints(request)
        aborted = AbortedCall()
        return cls(model, request.path, body, headers, stream, hints, joined, aborted, logprobs)

"""Inference by a model of the pool: wait in its queue, route to a replica, forward."""

import asyncio
from collections.abc import Mapping
from typing import Any

from sage_gateway.controlplane.model_catalog import ModelCatalog
from sage_gateway.errors import InvalidRequest
from sage_gateway.forwarding.forwarder import Forwarder
from sage_gateway.forwarding.outbound import Outbound
from sage_gateway.models.model import Model
from sage_gateway.observability.request_tracker import RequestTracker
from sage_gateway.openai.logprobs import LogprobForm
from sage_gateway.openai.request_size import choices, completion_tokens_max, prompts
from sage_gateway.openai.schema import (
    COMPLETIONS_MAX,
    ChatRequest,
    GenerationRequest,
    ModelRequest,
    NamedTool,
)
from sage_gateway.requests.request import Request
from sage_gateway.requests.response import Response, StreamingResponse
from sage_gateway.scheduling import ANSWER_TOKENS, RequestHints, expected_tokens, run_preemptible


class ModelInference:
    """Answers requests whose model is in the pool."""

    def __init__(self, catalog: ModelCatalog, forwarder: Forwarder) -> None:
        self._catalog = catalog
        self._forwarder = forwarder

    async def answer(
        self, request: Request, payload: ModelRequest, tracker: RequestTracker
    ) -> Response | StreamingResponse:
        """The engine's answer.

        Raises:
            NotFound, InvalidRequest: no model of this name answers the path, or not with so much.
            QueueFull, DeadlineExceeded: no replica had room in time.
            GatewayError: as :meth:`Forwarder.forward`.
        """
        model = self._catalog.model_for(payload, request.path)
        tracker.model = model.name
        _check_completions(model, payload)
        outbound = _outbound(model, request, payload)
        hints = RequestHints(
            request.tenant,
            request.priority,
            request.deadline_s,
            request.job,
            request.soft_deadline_s,
        )
        tokens = expected_cost(payload, len(outbound.body), model.spec.context_tokens)
        tracker.queue(model, hints, tokens)
        # The room is reserved for this task until its next await: it must lead to the replica.
        tracker.dispatch(await model.queue.admit(hints, tokens))
        try:
            if not (request.background and request.repeatable):
                return await self._forwarder.forward(outbound)
            call = _PreemptibleCall(self._forwarder, outbound, hints, tokens, tracker)
            return await run_preemptible(model.queue.preemptible, call.forward, call.resume)
        except asyncio.CancelledError:
            if request.progress.hung_up:
                request.progress.add(_aborted_usage(outbound, payload))
            raise


class _PreemptibleCall:
    """A background request at a replica, which users may preempt."""

    __slots__ = ("_forwarder", "_hints", "_outbound", "_tokens", "_tracker")

    def __init__(
        self,
        forwarder: Forwarder,
        outbound: Outbound,
        hints: RequestHints,
        tokens: int,
        tracker: RequestTracker,
    ) -> None:
        self._forwarder = forwarder
        self._outbound = outbound
        self._hints = hints
        self._tokens = tokens
        self._tracker = tracker

    async def forward(self) -> Response | StreamingResponse:
        """Send it to a replica."""
        return await self._forwarder.forward(self._outbound)

    async def resume(self) -> None:
        """Wait for room again, after it was preempted: its client does not pay for that."""
        self._outbound.aborted.reset()
        await self._outbound.model.queue.requeue_preempted(self._hints, self._tokens)
        self._tracker.resume()


def _check_completions(model: Model, payload: ModelRequest) -> None:
    """Refuse more completions than one request may ask of the model.

    Those of all prompts are at most ``COMPLETIONS_MAX``, or the slots of a model that has more. An
    engine that needs a slot for each choice has at most as many choices.

    Raises:
        InvalidRequest: ``param`` is the field that asks for them.
    """
    if not isinstance(payload, GenerationRequest):
        return
    slots = model.spec.slots
    for name in ("n", "n_cmpl", "best_of") if model.engine.choices_need_slots else ():
        if (getattr(payload, name) or 0) > slots:
            raise InvalidRequest(
                f"{name}: {model.name} has {slots} slots, one a choice", param=name
            )
    each, most = choices(payload), max(COMPLETIONS_MAX, slots)
    count = prompts(payload)
    if count * each > most:
        why = f"{model.name} makes at most {most} completions a request"
        asked = f"{count} prompts of {each} choices each"
        raise InvalidRequest(f"prompt: {why}, got {asked}; send several requests", param="prompt")


def _outbound(model: Model, request: Request, payload: ModelRequest) -> Outbound:
    upstream = model.engine_model_name()
    streams = isinstance(payload, GenerationRequest) and bool(payload.stream)
    changed = {} if model.engine.calls_named_tools else only_named_tool(request, payload)
    logprobs = LogprobForm.of(payload) if model.engine.logprobs_as_chat else None
    if logprobs is not None:
        changed |= logprobs.engine_fields()
    joined = model.joined_fields()
    if joined is not None and isinstance(payload, GenerationRequest) and not streams:
        body = request.body_for(upstream, {**joined, **changed})
        joins = choices(payload)
        return Outbound.of(model, request, body, stream=False, joined=joins, logprobs=logprobs)
    same = payload.model == upstream and not changed
    body = request.body if same else request.body_for(upstream, changed)
    return Outbound.of(model, request, body, stream=streams, logprobs=logprobs)


def only_named_tool(request: Request, payload: ModelRequest) -> dict[str, Any]:
    """Fields that mean the same as a ``tool_choice`` that names a function; empty without one."""
    if not isinstance(payload, ChatRequest) or not isinstance(payload.tool_choice, NamedTool):
        return {}
    name = payload.tool_choice.function.name
    tools = [tool for tool in request.fields()["tools"] if tool["function"]["name"] == name]
    return {"tools": tools, "tool_choice": "required"}


def _aborted_usage(outbound: Outbound, payload: ModelRequest) -> Mapping[str, int]:
    """The tokens of a whole answer whose client disconnected; empty if there is none yet.

    Those that the engine counted. Of an engine that counts only at the end, those that it makes in
    this time at the pace of its last answers, and no more than were asked for.
    """
    aborted, model = outbound.aborted, outbound.model
    made = model.load.tokens_in(aborted.seconds)
    if aborted.used or not made:
        return aborted.used
    prompt = expected_tokens(len(outbound.body), 0)
    if not isinstance(payload, GenerationRequest):
        return {"in": min(prompt, made)}
    limit = completion_tokens_max(payload)
    context = model.spec.context_tokens
    longest = min(limit, context) if limit > 0 else context
    return {"in": prompt, "out": min(made, prompts(payload) * choices(payload) * longest)}


def expected_cost(payload: ModelRequest, body_bytes: int, context_tokens: int) -> int:
    """The tokens that a request is expected to cost at a model with this context.

    Raises:
        InvalidRequest: as :func:`prompts`.
    """
    if not isinstance(payload, GenerationRequest):
        return expected_tokens(body_bytes, 0)
    limit = completion_tokens_max(payload)
    answer = context_tokens if limit < 0 else min(limit or ANSWER_TOKENS, context_tokens)
    return expected_tokens(body_bytes, prompts(payload) * choices(payload) * answer)

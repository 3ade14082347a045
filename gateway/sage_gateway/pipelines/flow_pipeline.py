"""Pipelines of ``sage_jobs``, served as models: the graph that runs on Flink, in this process."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from sage_flink import flow
from sage_flink.common import Record, Rejected, Settings
from sage_flink.flow.lists import ListSink, ListSource
from sage_gateway.pipelines.registry import Factory
from sage_gateway.pipelines.served_pipeline import OnDelta, PipelineReply, ServedPipeline
from sage_jobs import rag_answer


@dataclass(frozen=True, slots=True)
class FlowPipeline:
    """A graph from step ``questions`` to step ``answers``, run for one question at a time."""

    graph: flow.Graph

    async def answer(
        self, body: dict[str, Any], pool: flow.Pool, on_delta: OnDelta | None
    ) -> PipelineReply:
        """The reply to the last user message; the messages before it are the conversation.

        Raises:
            Rejected: there is no question, or a step refused it.
            PoolError: a call to the pool failed.
        """
        record = Record(id=f"ask-{secrets.token_hex(12)}", value=_question(body))
        answers = ListSink()

        outcome = await flow.run(
            self.graph,
            job="gateway",
            pool=pool,
            sources={"questions": ListSource((record,))},
            sinks={"answers": answers},
            on_delta=_without_step(on_delta) if on_delta else None,
        )
        for failed in outcome.failed:
            raise outcome.errors.get(failed.id) or Rejected(failed.reason)
        reply = orjson.loads(answers.rows[record.id].value)
        return PipelineReply(
            reply["answer"], reply["sources"], reply["usage"], reply["finish_reason"]
        )


def rag(settings: Settings) -> ServedPipeline:
    """``sage_jobs.rag_answer`` as the model ``rag``."""
    return FlowPipeline(rag_answer.build())


#: To add a pipeline, add a line: the name that requests put into ``model``, and its factory.
FACTORIES: dict[str, Factory] = {"rag": rag}


def _without_step(on_delta: OnDelta) -> Callable[[str, str], Awaitable[None]]:
    return lambda _, text: on_delta(text)


def _question(body: Mapping[str, Any]) -> bytes:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Rejected("messages must be a list with the question as its last user message")
    *earlier, last = messages
    if not isinstance(last, Mapping) or last.get("role") != "user":
        raise Rejected("the last message must be the user's question")
    text = last.get("content")
    if isinstance(text, list):
        text = "\n".join(part.get("text", "") for part in text if isinstance(part, Mapping))
    return orjson.dumps({"question": text, "messages": earlier})

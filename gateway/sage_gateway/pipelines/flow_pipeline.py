"""Pipelines of ``sage_jobs`` as mounts: the same graph that runs on Flink, run in this process."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from sage_flink import flow
from sage_flink.common import Record, Rejected, Settings
from sage_flink.flow.lists import ListSink, ListSource
from sage_gateway.pipelines.registry import Factory, Mount, OnDelta, Reply
from sage_jobs import rag_answer


@dataclass(frozen=True, slots=True)
class Answerer:
    """A graph from step ``questions`` to step ``answers``, one question at a time."""

    graph: flow.Graph
    pool: flow.Pool

    async def answer(self, body: dict[str, Any], on_delta: OnDelta | None) -> Reply:
        """The reply to the last user message; the messages before it are the conversation.

        Raises:
            Rejected: there is no question, or a step refused it.
            PoolError: a call to the pool failed.
        """
        record = Record(id=f"ask-{secrets.token_hex(12)}", value=_question(body))
        answers = ListSink()

        async def hear(step: str, text: str) -> None:
            assert on_delta is not None
            await on_delta(text)

        outcome = await flow.run(
            self.graph,
            job="gateway",
            pool=self.pool,
            sources={"questions": ListSource((record,))},
            sinks={"answers": answers},
            on_delta=hear if on_delta else None,
        )
        for failed in outcome.failed:
            raise outcome.errors.get(failed.id) or Rejected(failed.reason)
        reply = orjson.loads(answers.rows[record.id].value)
        return Reply(reply["answer"], reply["sources"], reply["usage"], reply["finish_reason"])


def rag(settings: Settings, pool: flow.Pool) -> Mount:
    """``sage_jobs.rag_answer`` as the model ``rag``."""
    return Answerer(rag_answer.build(), pool)


#: One more pipeline: one line here, the name that callers put into ``model`` -> what makes it.
FACTORIES: dict[str, Factory] = {"rag": rag}


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

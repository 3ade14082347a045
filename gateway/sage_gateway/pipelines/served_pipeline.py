"""The port of a pipeline that is served as a model."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from sage_flink import flow

OnDelta = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class PipelineReply:
    """A pipeline's whole answer. ``usage`` is OpenAI's: prompt, completion and total tokens."""

    text: str
    sources: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    finish_reason: str = "stop"


class ServedPipeline(Protocol):
    """A pipeline that answers chats."""

    async def answer(
        self, body: dict[str, Any], pool: flow.Pool, on_delta: OnDelta | None
    ) -> PipelineReply:
        """The reply to a chat request's ``body``.

        ``pool`` sends the pipeline's calls, on behalf of the client that sent the chat. With
        ``on_delta`` each piece of the text is awaited there when it is ready; the pieces joined are
        the reply's text. Cancelled when the client disconnects.

        Raises:
            Rejected: the request is at fault.
            PoolError: a call to the pool failed.
        """
        ...

"""Pipelines served as models: each answers a chat under the name that requests put into ``model``.

A whole answer is OpenAI's with ``sources`` next to ``choices``; in a stream the chunk with
``finish_reason`` has them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sage_flink.common import PoolError, Settings
from sage_gateway.errors import InvalidRequest
from sage_gateway.openai.request_size import completion_tokens_max
from sage_gateway.openai.schema import ChatRequest
from sage_gateway.pipelines import chat_answer
from sage_gateway.pipelines.pool_client import PoolClient
from sage_gateway.pipelines.served_pipeline import ServedPipeline
from sage_gateway.requests.request import Handler, Request
from sage_gateway.requests.response import Response, StreamingResponse

#: Fields of a chat for the pipeline's own chats; its limit of tokens is another one.
HANDED_ON = ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty")
#: What a client says of itself or asks of OpenAI's store; the answer is the same.
OF_THE_CLIENT = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    "parallel_tool_calls",
)
TAKEN = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"),
        *HANDED_ON,
        *OF_THE_CLIENT,
    }
)
#: Code of an error: a prompt is longer than the model's context.
OVERFLOW = "context_length_exceeded"
#: A pipeline gives one answer.
COUNTS = ("n", "n_cmpl", "best_of")
Factory = Callable[[Settings], ServedPipeline]


class ServedPipelines:
    """All served pipelines by name.

    ``inference`` answers their calls. It serves no pipelines, so that none can call itself.
    """

    def __init__(self, pipelines: Mapping[str, ServedPipeline], inference: Handler) -> None:
        self.by_name = pipelines
        self._inference = inference

    def find(self, name: str) -> ServedPipeline | None:
        """The pipeline of this name."""
        return self.by_name.get(name)

    async def answer(
        self, pipeline: ServedPipeline, request: Request, chat: ChatRequest
    ) -> Response | StreamingResponse:
        """The pipeline's answer to ``chat``; of a stream, once its first piece is ready.

        Raises:
            InvalidRequest: ``chat`` has a field that no pipeline takes.
            Exception: as :meth:`ServedPipeline.answer`; after the first piece of a stream an error
                is its last event.
        """
        fields = request.fields()
        _check(chat.model, fields)
        options = {name: fields[name] for name in HANDED_ON if fields.get(name) is not None}
        if limit := completion_tokens_max(chat):
            options["max_tokens"] = limit
        pool = PoolClient(self._inference, request, options)
        try:
            if chat.stream:
                return await chat_answer.stream(chat, pipeline, fields, pool)
            reply = await pipeline.answer(fields, pool, None)
        except PoolError as error:
            if error.code != OVERFLOW:
                raise
            # The pipeline's own prompt overflowed; a client can only shorten its messages.
            raise InvalidRequest(str(error), code=OVERFLOW, param="messages") from error
        return chat_answer.whole(chat.model, reply, pool.used)


def _check(model: str, fields: Mapping[str, Any]) -> None:
    """Refuse a field that would change the answer, if the pipeline's chats cannot have it."""
    for name, value in fields.items():
        if value and name not in TAKEN and not (name in COUNTS and value == 1):
            message = f"{name}: {model} is a pipeline, which does not take this field"
            raise InvalidRequest(message, param=name)


def load(settings: Settings, factories: Mapping[str, Factory]) -> dict[str, ServedPipeline]:
    """Every served pipeline by its name."""
    return {name: make(settings) for name, make in factories.items()}

"""Pipelines served as models: each answers a chat under the name that requests put into ``model``.

A whole answer is OpenAI's with ``sources`` next to ``choices``; in a stream the chunk with
``finish_reason`` has them.
"""

from collections.abc import Callable, Mapping

from sage_flink.common import Settings
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
#: Fields of a chat that change the form of an answer, which is the pipeline's.
COUNTS = ("n", "n_cmpl", "best_of")
UNSUPPORTED = (
    *COUNTS,
    "n_predict",
    "tools",
    "tool_choice",
    "response_format",
    "logprobs",
    "top_logprobs",
)
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
        _check(chat)
        fields = request.fields()
        options = {name: fields[name] for name in HANDED_ON if fields.get(name) is not None}
        if limit := completion_tokens_max(chat):
            options["max_tokens"] = limit
        pool = PoolClient(self._inference, request, options)
        if chat.stream:
            return await chat_answer.stream(chat, pipeline, fields, pool)
        reply = await pipeline.answer(fields, pool, None)
        return chat_answer.whole(chat.model, reply, pool.used)


def _check(chat: ChatRequest) -> None:
    for name in UNSUPPORTED:
        value = getattr(chat, name)
        if value not in (None, False) and not (name in COUNTS and value == 1):
            message = f"{name}: {chat.model} is a pipeline, which does not take this field"
            raise InvalidRequest(message, param=name)


def load(settings: Settings, factories: Mapping[str, Factory]) -> dict[str, ServedPipeline]:
    """Every served pipeline by its name."""
    return {name: make(settings) for name, make in factories.items()}

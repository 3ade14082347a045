"""Pipelines served as models: each answers a chat under the name that requests put into ``model``.

A whole answer is OpenAI's with ``sources`` next to ``choices``; in a stream the chunk with
``finish_reason`` has them.
"""

from collections.abc import Callable, Mapping

from sage_flink.common import Settings
from sage_gateway.openai.schema import ChatRequest
from sage_gateway.pipelines import chat_answer
from sage_gateway.pipelines.pool_client import PoolClient
from sage_gateway.pipelines.served_pipeline import ServedPipeline
from sage_gateway.requests.request import Handler, Request
from sage_gateway.requests.response import Response, StreamingResponse

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
            Exception: as :meth:`ServedPipeline.answer`; after the first piece of a stream an error
                is its last event.
        """
        pool = PoolClient(self._inference, request)
        if chat.stream:
            return await chat_answer.stream(chat, pipeline, request.fields(), pool)
        return chat_answer.whole(chat.model, await pipeline.answer(request.fields(), pool, None))


def load(settings: Settings, factories: Mapping[str, Factory]) -> dict[str, ServedPipeline]:
    """Every served pipeline by its name."""
    return {name: make(settings) for name, make in factories.items()}

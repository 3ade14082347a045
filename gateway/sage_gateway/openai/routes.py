"""The POST routes that a model answers, and the schema of the body of each."""

from collections.abc import Mapping

from sage_gateway.openai.decoding import (
    check_chat,
    check_input,
    check_logit_bias,
    check_prompt,
    check_stream_options,
    check_tool_choice,
    check_utf8,
    decode,
)
from sage_gateway.openai.schema import (
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
    GenerationRequest,
    ModelRequest,
    RerankRequest,
    ResponsesRequest,
    SearchRequest,
)

MODEL_ROUTES: Mapping[str, type[ModelRequest]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingsRequest,
    "/v1/rerank": RerankRequest,
}
#: The field of each with the text that an engine reads.
TEXT_FIELDS: Mapping[str, str] = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
    "/v1/rerank": "documents",
}
RESPONSES_ROUTE = "/v1/responses"
#: The route of all searches, as the OpenAPI document and the metrics name it.
SEARCH_ROUTE = "/v1/vector_stores/{name}/search"
Payload = ModelRequest | ResponsesRequest | SearchRequest
_KINDS: Mapping[str, type[Payload]] = {**MODEL_ROUTES, RESPONSES_ROUTE: ResponsesRequest}
_PREFIX, _SUFFIX = SEARCH_ROUTE.split("{name}")


def collection_of(path: str) -> str | None:
    """The vector store that ``path`` searches; None for every other path."""
    if path.startswith(_PREFIX) and path.endswith(_SUFFIX):
        return path[len(_PREFIX) : -len(_SUFFIX)]
    return None


def is_inference(path: str) -> bool:
    """Whether ``POST path`` is answered by a model."""
    return path in MODEL_ROUTES or path == RESPONSES_ROUTE or collection_of(path) is not None


def decode_payload(path: str, body: bytes) -> Payload:
    """The fields of ``body`` that the gateway reads, checked; ``path`` is an inference route.

    Raises:
        InvalidRequest: the body is not UTF-8 or not JSON, a field has a wrong type or is missing,
            the content of a message is not text, ``tool_choice`` is of a tool that is missing, or
            ``logit_bias`` is not one of tokens.
    """
    check_utf8(body)
    kind: type[Payload] = _KINDS.get(path, SearchRequest)
    payload: Payload = decode(body, kind)
    if isinstance(payload, ChatRequest):
        check_chat(payload)
        check_tool_choice(payload)
    elif isinstance(payload, EmbeddingsRequest):
        check_input(payload)
    elif isinstance(payload, CompletionRequest):
        check_prompt(payload)
    if isinstance(payload, GenerationRequest):
        check_stream_options(payload)
        check_logit_bias(payload)
    return payload

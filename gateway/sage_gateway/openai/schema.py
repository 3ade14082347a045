"""OpenAI's request schemas, reduced to the fields that the gateway reads.

Bodies are forwarded unchanged. A wrong type in a field that decides the cost of a request is
refused here, because an engine might read it in another way.
"""

from typing import Annotated, Any, Literal

import msgspec

BODY_BYTES_MAX = 8 << 20

#: Of tokens; -1 is llama.cpp's "as many as there is room for".
Count = Annotated[int, msgspec.Meta(ge=-1, le=(1 << 31) - 1)]
#: Of one request: OpenAI's limit of ``n``, here that of all prompts together. A completion is a
#: generation, so the limit is far below that of the texts of an embeddings request (2,048).
COMPLETIONS_MAX = 128
#: Of answers to one prompt.
Choices = Annotated[int, msgspec.Meta(ge=1, le=COMPLETIONS_MAX)]
#: Beyond 64 bits a number would reach the engine rounded, as a float.
Seed = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
#: Of the most likely tokens at each place, with their log probabilities; llama.cpp's limit is its
#: vocabulary, which is megabytes a token.
Alternatives = Annotated[int, msgspec.Meta(ge=0, le=20)]
WHOLE_PATTERN = "^[0-9]{1,10}$"
BIAS_MAX = 100
_BIASES = {
    "propertyNames": {"pattern": WHOLE_PATTERN},
    "additionalProperties": {"type": "number", "minimum": -BIAS_MAX, "maximum": BIAS_MAX},
}
#: By the number of a token, as a text; engines ignore numbers beyond their model's vocabulary.
Biases = Annotated[dict[str, Any], msgspec.Meta(extra_json_schema=_BIASES)]


_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}


_PROMPT_TYPES = ["string", "number", "object", "array"]
#: A text, tokens, or a list of those; an object is llama.cpp's form. The engine checks the rest.
_PROMPTS = {
    "anyOf": [
        {"type": ["string", "object"]},
        {"type": "array", "items": {"type": _PROMPT_TYPES}, "minItems": 1},
    ]
}


class Part(msgspec.Struct):
    """A piece of a message's content; only texts are taken (no addresses to fetch)."""

    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["text"]})]
    text: str | None = None


class ToolCallFunction(msgspec.Struct):
    """The function of a call, with its arguments as the model wrote them."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    arguments: str


class ToolCall(msgspec.Struct):
    """A call that the model made earlier in the conversation."""

    type: Literal["function"]
    function: ToolCallFunction
    id: str | None = None


class Message(msgspec.Struct):
    """One message of a conversation."""

    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[ToolCall] | None = None


class StreamOptions(msgspec.Struct):
    """What a stream should carry."""

    include_usage: bool = False
    #: vLLM's: the tokens so far in each event.
    continuous_usage_stats: bool | None = None


class ToolFunction(msgspec.Struct):
    """A function that the model may call."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, msgspec.Raw] | None = None


class Tool(msgspec.Struct):
    """A tool that the model may call; all are functions."""

    type: Literal["function"]
    function: ToolFunction


class NamedFunction(msgspec.Struct):
    """The function that the model must call."""

    name: str


class NamedTool(msgspec.Struct):
    """The tool that the model must call."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(msgspec.Struct):
    """The JSON schema of an answer, under OpenAI's other fields; the engine reads it."""

    schema: dict[str, msgspec.Raw]


class TextFormat(msgspec.Struct, tag_field="type", tag="text"):
    """The answer is a text."""


class JsonFormat(msgspec.Struct, tag_field="type", tag="json_object"):
    """The answer is some JSON object."""


class JsonSchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    """The answer is JSON of this schema."""

    json_schema: JsonSchema


class StructuralTagFormat(msgspec.Struct, tag_field="type", tag="structural_tag"):
    """vLLM's: parts of the answer between tags have a schema; the engine checks the rest."""


ResponseFormat = TextFormat | JsonFormat | JsonSchemaFormat | StructuralTagFormat


class _Generation(msgspec.Struct, kw_only=True):
    """The fields of chats and completions that decide the cost, or that an engine may crash on."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n_predict: Count | None = None
    n: Choices | None = None
    n_cmpl: Choices | None = None
    best_of: Choices | None = None
    n_probs: Alternatives | None = None
    seed: Seed | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: str | list[str] | None = None
    response_format: ResponseFormat | None = None
    logit_bias: Biases | None = None
    user: str | None = None


class ChatRequest(_Generation, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None


class CompletionRequest(_Generation, kw_only=True):
    """``POST /v1/completions``."""

    prompt: Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema=_PROMPTS)]
    logprobs: Alternatives | None = None


class EmbeddingsRequest(msgspec.Struct):
    """``POST /v1/embeddings``; ``input`` is a text or a list of texts."""

    model: str
    input: Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema=_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None


class RerankRequest(msgspec.Struct):
    """``POST /v1/rerank``, as Cohere, Jina and vLLM have it."""

    model: str
    query: Annotated[str, msgspec.Meta(min_length=1)]
    documents: Annotated[list[str], msgspec.Meta(min_length=1)]


class RankingOptions(msgspec.Struct, forbid_unknown_fields=True):
    """How results of a search are ranked.

    ``auto`` is by vectors, ``hybrid`` by vectors and words, fused by their ranks; the score is then
    that of the fusion.
    """

    ranker: Literal["auto", "hybrid"] = "auto"
    #: Results with a lower score are left out; of ``auto`` only.
    score_threshold: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None = None


class SearchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /v1/vector_stores/{name}/search``; ``offset`` and ``group_by`` are not OpenAI's."""

    query: Annotated[str, msgspec.Meta(min_length=1)]
    max_num_results: Annotated[int, msgspec.Meta(ge=1, le=50)] = 10
    #: OpenAI's comparison or compound filter, or a text such as ``year >= 2024 and new == true``.
    filters: dict[str, Any] | str | None = None
    ranking_options: RankingOptions | None = None
    #: This many results before those returned are left out.
    offset: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    #: ``document``: the best chunk of each document, which results and ``offset`` then count.
    group_by: Literal["document"] | None = None


class ReasoningOptions(msgspec.Struct):
    """How long a model reasons before it answers; the engine checks the rest."""

    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(msgspec.Struct):
    """``POST /v1/responses``; see :mod:`sage_gateway.responses`."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool | None = False
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=(1 << 31) - 1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    reasoning: ReasoningOptions | None = None
    include: list[str] | None = None
    top_logprobs: Alternatives | None = None

    @property
    def logprobs(self) -> bool:
        """Whether each piece of the text has its log probability."""
        return "message.output_text.logprobs" in (self.include or ())


GenerationRequest = ChatRequest | CompletionRequest
ModelRequest = ChatRequest | CompletionRequest | EmbeddingsRequest | RerankRequest

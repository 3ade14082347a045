"""Cost of a request, estimated from a few of its fields, and of its answer.

A token is at least one byte of text, so the body's length bounds the prompt, and the context
bounds prompt and completion together. The likely cost is far lower: four bytes a token.
"""

from collections.abc import Mapping

import msgspec

from sage_gateway.openai.request_size import choices, completion_tokens_max, prompts
from sage_gateway.openai.schema import GenerationRequest, RerankRequest
from sage_gateway.tenants.limits import Cost

BYTES_A_TOKEN = 4
#: Tokens that a chat template adds to the messages.
TEMPLATE_TOKENS = 64


class TokenUsage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one answer."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


def prompt_likely(body: bytes) -> int:
    """Tokens that a body of this length usually has."""
    return len(body) // BYTES_A_TOKEN + 1


def generation(request: GenerationRequest, body: bytes, context_tokens: int) -> Cost:
    """The cost of a chat or a completion at a model with this context.

    Raises:
        InvalidRequest: as :func:`prompts`.
    """
    longest, limit = context_tokens, completion_tokens_max(request)
    if limit > 0 and request.n_predict is None:  # which some engines do not know
        longest = min(limit, context_tokens)
    prompt_count = prompts(request)
    count = prompt_count * choices(request)
    prompt = min(len(body) + TEMPLATE_TOKENS, prompt_count * context_tokens)
    most = min(prompt + count * longest, count * context_tokens)
    return Cost(min(prompt_likely(body) + count * longest, most), most)


def pipeline(request: GenerationRequest, body: bytes, context_tokens: int) -> Cost:
    """The cost of a chat that a pipeline answers: it embeds the question, and fills a prompt.

    Its own prompt is not in ``body``, so two whole contexts bound it.
    """
    return Cost(generation(request, body, context_tokens).likely, 2 * context_tokens)


def embedding(body: bytes) -> Cost:
    """The cost of vectors: only their texts count."""
    most = len(body) + TEMPLATE_TOKENS
    return Cost(min(prompt_likely(body), most), most)


def rerank(request: RerankRequest, body: bytes) -> Cost:
    """The cost of scores: the engine reads the query once with each document."""
    repeated = (len(request.documents) - 1) * len(request.query.encode())
    most = len(body) + repeated + TEMPLATE_TOKENS
    return Cost(min(prompt_likely(body) + repeated // BYTES_A_TOKEN, most), most)


def token_usage(found: Mapping[str, int], *, body: bytes, deltas: int, most: int) -> TokenUsage:
    """The usage of an answer: as the engine reports it, and never less than its ``deltas``.

    It is capped at the hold: a higher report of an engine would exceed the budget.
    """
    prompt = found["in"] if "in" in found else prompt_likely(body)
    prompt = min(prompt, most)
    return TokenUsage(prompt, min(max(found.get("out", 0), deltas), most - prompt))

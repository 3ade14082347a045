"""What a request can cost, read from the few fields that say so, and what an answer did cost.

A token is at least one byte of text, so the body's length bounds the prompt, and the context
bounds prompt and completion together. That is far above what is likely: four bytes a token.
"""

from collections.abc import Mapping

import msgspec

from sage_gateway.openai.schema import GenerationRequest
from sage_gateway.tenants.limits import Cost

BYTES_A_TOKEN = 4
#: What a chat template writes around the messages.
TEMPLATE_TOKENS = 64


class Used(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one answer."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total(self) -> int:
        """Both."""
        return self.prompt_tokens + self.completion_tokens


def prompt_likely(body: bytes) -> int:
    """Tokens that a body of this length usually holds."""
    return len(body) // BYTES_A_TOKEN + 1


def generation(request: GenerationRequest, body: bytes, context_tokens: int) -> Cost:
    """The cost of a chat or a completion at a model with this context."""
    limits = [
        n for n in (request.max_tokens, request.max_completion_tokens) if n is not None and n > 0
    ]
    longest = context_tokens
    if limits and request.n_predict is None:
        longest = min(max(limits), context_tokens)
    count = max(1, request.n or 1, request.best_of or 1)
    prompt = min(len(body) + TEMPLATE_TOKENS, context_tokens)
    most = min(prompt + count * longest, count * context_tokens)
    return Cost(min(prompt_likely(body) + count * longest, most), most)


def embedding(body: bytes) -> Cost:
    """The cost of vectors: the texts are all of it."""
    most = len(body) + TEMPLATE_TOKENS
    return Cost(min(prompt_likely(body), most), most)


def used(found: Mapping[str, int], *, body: bytes, deltas: int, most: int) -> Used:
    """What an answer cost: as the engine says, else as counted; never more than was held.

    An engine that says too much is not believed: that would spend what nobody held back.
    """
    prompt = found["in"] if "in" in found else prompt_likely(body)
    prompt = min(prompt, most)
    return Used(prompt, min(found.get("out", deltas), most - prompt))

"""Log probabilities in OpenAI's two forms, from those of llama.cpp, which has one for both routes.

A chat has a list of tokens, each with its alternatives. A completion has four lists, and the
alternatives of a token contain the token itself. Source: OpenAI API reference, the chat completion
object and the completion object.
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from sage_gateway.openai.schema import ChatRequest, CompletionRequest, ModelRequest


class LogprobForm(NamedTuple):
    """The form that a request asks for, with this many alternatives for each token at most."""

    completion: bool
    alternatives: int

    @classmethod
    def of(cls, payload: ModelRequest) -> "LogprobForm | None":
        """The form of the answer; None if the request asks for no log probabilities."""
        if isinstance(payload, ChatRequest) and payload.logprobs:
            return cls(completion=False, alternatives=payload.top_logprobs or 0)
        if isinstance(payload, CompletionRequest) and payload.logprobs is not None:
            return cls(completion=True, alternatives=payload.logprobs)
        return None

    def engine_fields(self) -> dict[str, Any]:
        """Fields to change in the request: for 0 alternatives llama.cpp gives nothing at all."""
        if self.alternatives:
            return {}
        return {"logprobs" if self.completion else "top_logprobs": 1}

    def convert(self, logprobs: Mapping[str, Any], offset: int) -> dict[str, Any]:
        """``logprobs`` of llama.cpp in this form; ``offset``: characters of the text before it."""
        content = logprobs.get("content") or ()
        if not self.completion:
            pieces = [{**one, "top_logprobs": self._alternatives(one)} for one in content]
            return {**logprobs, "content": pieces}
        tokens = [str(one["token"]) for one in content]
        return {
            "text_offset": list(accumulate(map(len, tokens), initial=offset))[:-1],
            "token_logprobs": [one["logprob"] for one in content],
            "tokens": tokens,
            "top_logprobs": [self._by_token(one) for one in content],
        }

    def _alternatives(self, one: Mapping[str, Any]) -> list[Any]:
        return list(one.get("top_logprobs") or ())[: self.alternatives]

    def _by_token(self, one: Mapping[str, Any]) -> dict[str, float]:
        found = [*self._alternatives(one), one]
        return {str(each["token"]): each["logprob"] for each in found}

"""Completion: the record's prompt, continued.

Source: OpenAI API reference, POST /v1/completions.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.common.validation import require, require_name, require_whole_number
from sage_flink.common.values import require_mapping, require_text


@dataclass(frozen=True, slots=True)
class Completion:
    """What follows ``value[prompt]`` into ``value[into]``, its usage into ``value["usage"]``.

    It ends after ``tokens_max`` tokens, or before the first of the texts in ``stop``.
    """

    model: str
    prompt: str = "prompt"
    into: str = "completion"
    tokens_max: int = 256
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("model", "prompt", "into"):
            require_name("completion", name, getattr(self, name))
        require_whole_number("completion", "tokens_max", self.tokens_max)
        heat = self.temperature
        known = isinstance(heat, int | float) and 0 <= heat <= 2
        require(known, "completion", "temperature", "a number from 0 to 2", heat)
        texts = isinstance(self.stop, tuple) and all(isinstance(s, str) and s for s in self.stop)
        enough = texts and len(self.stop) <= 4
        require(enough, "completion", "stop", "a tuple of at most 4 texts", self.stop)

    @property
    def mode(self) -> Literal["post"]:
        """One request a record."""
        return "post"

    @property
    def path(self) -> str:
        """OpenAI's path."""
        return "/v1/completions"

    def request(self, record: Record) -> bytes:
        """The request's JSON.

        Raises:
            Rejected: the prompt is missing, or not a text, or empty.
        """
        fields = {
            "model": self.model,
            "prompt": require_text(record, self.prompt),
            "max_tokens": self.tokens_max,
            "temperature": self.temperature,
            "seed": self.seed,
            **({"stop": self.stop} if self.stop else {}),
        }
        return msgspec.json.encode(fields)

    def answer(self, record: Record, body: bytes) -> Record:
        """The record with the text, the reason it ended, and the tokens it took."""
        try:
            reply = msgspec.json.decode(body)
            choice = reply["choices"][0]
            made = choice["text"]
        except (msgspec.DecodeError, KeyError, IndexError, TypeError) as error:
            raise Rejected(f"{self.model}: the answer is not a completion: {error}") from error
        return record.replace(
            value={
                **require_mapping(record),
                self.into: made or "",
                "finish_reason": choice.get("finish_reason"),
                "usage": reply.get("usage") or {},
            }
        )


def completion(
    *,
    model: str,
    prompt: str = "prompt",
    into: str = "completion",
    tokens_max: int = 256,
    temperature: float = 0.0,
    stop: tuple[str, ...] = (),
) -> Completion:
    """A call that continues ``value[prompt]`` with ``model``, at most ``tokens_max`` tokens.

    Raises:
        PipelineError: the model is empty or a number is out of range.
    """
    return Completion(model, prompt, into, tokens_max, temperature, stop=stop)

"""Chat: the record's messages become one answer, whole or in pieces.

Source: OpenAI API reference, POST /v1/chat/completions and its stream of server-sent events.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from sage_flink.common.errors import PoolError, Rejected
from sage_flink.common.openai import event_of
from sage_flink.common.records import Record
from sage_flink.common.request_templates import RequestTemplate, TemplatePart, prompt_parts
from sage_flink.common.validation import require, require_name, require_whole_number
from sage_flink.common.values import require_mapping


@dataclass(frozen=True, slots=True)
class Chat:
    """The answer to ``value[messages]`` into ``value[into]``, its usage into ``value["usage"]``.

    With a ``prompt`` the only message is that text, in which ``{name}`` is the text of a field. The
    answer ends after ``tokens_max`` tokens, or before the first of the texts in ``stop``.
    """

    model: str
    messages: str = "messages"
    into: str = "answer"
    tokens_max: int = 256
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    prompt: str = ""

    def __post_init__(self) -> None:
        for name in ("model", "messages", "into"):
            require_name("chat", name, getattr(self, name))
        require(isinstance(self.prompt, str), "chat", "prompt", "a text", self.prompt)
        prompt_parts("chat", self.prompt)
        require_whole_number("chat", "tokens_max", self.tokens_max)
        heat = self.temperature
        known = isinstance(heat, int | float) and 0 <= heat <= 2
        require(known, "chat", "temperature", "a number from 0 to 2", heat)
        texts = isinstance(self.stop, tuple) and all(isinstance(s, str) and s for s in self.stop)
        require(
            texts and len(self.stop) <= 4, "chat", "stop", "a tuple of at most 4 texts", self.stop
        )

    @property
    def mode(self) -> Literal["post"]:
        """One request a record."""
        return "post"

    @property
    def path(self) -> str:
        """OpenAI's path."""
        return "/v1/chat/completions"

    @property
    def request_template(self) -> RequestTemplate:
        """The request around the record's fields, so that the JVM can make it."""
        return self._template({})

    @property
    def completion_field(self) -> str:
        """The field for the answer's text, so that the JVM can give it."""
        return self.into

    def request(self, record: Record) -> bytes:
        """The request's JSON.

        Raises:
            Rejected: the record has no messages, or not the texts of the prompt.
        """
        return self.request_template.render(record)

    def request_streamed(self, record: Record) -> bytes:
        """The same request, asking for a stream with its usage at the end."""
        options = {"stream": True, "stream_options": {"include_usage": True}}
        return self._template(options).render(record)

    def answer(self, record: Record, body: bytes) -> Record:
        """The record with the answer's text, the reason it ended, and the tokens it took."""
        try:
            reply = msgspec.json.decode(body)
            choice = reply["choices"][0]
            text = choice["message"]["content"]
        except (msgspec.DecodeError, KeyError, IndexError, TypeError) as error:
            raise Rejected(f"{self.model}: the answer is not a chat completion: {error}") from error
        return record.replace(
            value={
                **require_mapping(record),
                self.into: text or "",
                "finish_reason": choice.get("finish_reason"),
                "usage": reply.get("usage") or {},
            }
        )

    def pieces(self) -> "ChatPieces":
        """A collector for one streamed answer."""
        return ChatPieces()

    def _template(self, options: dict[str, Any]) -> RequestTemplate:
        limits = {
            "max_tokens": self.tokens_max,
            "temperature": self.temperature,
            "seed": self.seed,
            **({"stop": self.stop} if self.stop else {}),
        }
        head = msgspec.json.encode({"model": self.model}).decode()[:-1] + ',"messages":'
        tail = "," + msgspec.json.encode(limits | options).decode()[1:]
        begin, end = TemplatePart("literal", head), TemplatePart("literal", tail)
        return RequestTemplate((begin, *self._messages(), end))

    def _messages(self) -> tuple[TemplatePart, ...]:
        if not self.prompt:
            return (TemplatePart("list", self.messages),)
        before = TemplatePart("literal", '[{"role":"user","content":"')
        after = TemplatePart("literal", '"}]')
        return (before, *prompt_parts("chat", self.prompt), after)


@dataclass(slots=True)
class ChatPieces:
    """Server-sent events of one chat completion, put together again."""

    rest: bytes = b""
    text: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)

    def feed(self, chunk: bytes) -> str:
        """The text that ``chunk`` adds; events may be cut anywhere between chunks.

        Raises:
            PoolError: the stream carried an error event.
        """
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        added = "".join(self._event(line) for line in lines)
        if added:
            self.text.append(added)
        return added

    def body(self) -> bytes:
        """The chat completion that the unstreamed request would have answered with.

        Raises:
            PoolError: the stream ended before the answer did.
        """
        if self.finish_reason is None:
            raise PoolError("the stream ended before the answer did")
        message = {"role": "assistant", "content": "".join(self.text)}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return msgspec.json.encode({"choices": [choice], "usage": self.usage})

    def _event(self, line: bytes) -> str:
        event = event_of(line)
        if event is None:
            return ""
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices") or ():
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            return (choice.get("delta") or {}).get("content") or ""
        return ""


def chat(
    *,
    model: str,
    messages: str = "messages",
    into: str = "answer",
    tokens_max: int = 256,
    temperature: float = 0.0,
    stop: tuple[str, ...] = (),
    prompt: str = "",
) -> Chat:
    """A call that answers ``value[messages]`` with ``model``, at most ``tokens_max`` tokens.

    With ``prompt="Summarise: {text}"`` it answers that text with the record's field ``text`` in it,
    and reads no messages.

    Raises:
        PipelineError: the model is empty, a number is out of range, or the prompt is no template.
    """
    return Chat(model, messages, into, tokens_max, temperature, stop=stop, prompt=prompt)

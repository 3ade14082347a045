"""Embedding: one text of the record becomes one vector.

The call gathers texts of many records into one request; see ``flow.ports.CallSpec``.
Source: OpenAI API reference, POST /v1/embeddings.
"""

from dataclasses import dataclass
from typing import Literal

from sage_flink.common.errors import PipelineError, Rejected
from sage_flink.common.records import Record
from sage_flink.inference.values import fields_of


@dataclass(frozen=True, slots=True)
class Embed:
    """The vector of ``value[text]`` into ``value[into]``: little-endian float32 bytes.

    ``title`` names a field whose text is embedded in front of it: a chunk from the middle of a
    document then knows what it belongs to.
    """

    model: str
    text: str = "text"
    title: str = ""
    into: str = "vector"

    @property
    def mode(self) -> Literal["embed"]:
        """Texts are gathered across records."""
        return "embed"

    @property
    def path(self) -> str:
        """OpenAI's path."""
        return "/v1/embeddings"

    def request(self, record: Record) -> bytes:
        """The text, UTF-8.

        Raises:
            Rejected: there is no such field, or it is not a text, or it is empty.
        """
        text = fields_of(record).get(self.text)
        if not isinstance(text, str) or not text.strip():
            raise Rejected(
                f"field {self.text!r} must be a text that is not empty, got {text!r:.80}"
            )
        return f"{fields_of(record)[self.title]}\n{text}".encode() if self.title else text.encode()

    def answer(self, record: Record, body: bytes) -> Record:
        """The record with its vector."""
        if not body or len(body) % 4:
            raise Rejected(f"the vector has {len(body)} bytes, not a multiple of four")
        return record.replace(value={**fields_of(record), self.into: body})


def embed(*, model: str, text: str = "text", title: str = "", into: str = "vector") -> Embed:
    """A call that embeds ``value[text]`` with ``model``, ``value[title]`` in front of it if named.

    Raises:
        PipelineError: a name is empty.
    """
    if not (model and text and into):
        raise PipelineError("embed: model, text and into must not be empty")
    return Embed(model, text, title, into)

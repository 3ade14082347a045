"""Embedding: one text of the record becomes one vector.

The call batches texts of many records into one request; see ``flow.call_ports.CallSpec``.
Source: OpenAI API reference, POST /v1/embeddings.
"""

from dataclasses import dataclass
from typing import Literal, final

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.common.request_templates import RequestTemplate, TemplatePart
from sage_flink.common.validation import require, require_name
from sage_flink.common.values import require_mapping


@final
@dataclass(frozen=True, slots=True)
class Embed:
    """The vector of ``value[text]`` into ``value[into]``: little-endian float32 bytes.

    ``title`` names a field with a text that is embedded in front of it, so that a chunk from the
    middle of a document keeps its context. A vector of other than ``dim`` numbers is refused; 0
    accepts any.
    """

    model: str
    text: str = "text"
    title: str = ""
    into: str = "vector"
    dim: int = 0

    def __post_init__(self) -> None:
        for name in ("model", "text", "into"):
            require_name("embed", name, getattr(self, name))
        require(isinstance(self.title, str), "embed", "title", "a name, or ''", self.title)
        known = isinstance(self.dim, int) and self.dim >= 0
        require(known, "embed", "dim", "the length of a vector, or 0", self.dim)

    @property
    def mode(self) -> Literal["embed"]:
        """Texts are batched across records."""
        return "embed"

    @property
    def path(self) -> str:
        """OpenAI's path."""
        return "/v1/embeddings"

    @property
    def answer_field(self) -> str:
        """The field for the vector: the whole answer, so that the JVM can give it."""
        return self.into

    @property
    def request_template(self) -> RequestTemplate:
        """The text, and the title in front of it, so that the JVM can make the request."""
        title, text = TemplatePart("text", self.title), TemplatePart("text", self.text)
        parts = (title, TemplatePart("literal", "\n"), text) if self.title else (text,)
        return RequestTemplate(parts)

    def request(self, record: Record) -> bytes:
        """The text, UTF-8.

        Raises:
            Rejected: text or title is missing, or not a text, or empty.
        """
        return self.request_template.render(record)

    def answer(self, record: Record, body: bytes) -> Record:
        """The record with its vector."""
        if not body or len(body) % 4:
            raise Rejected(f"the vector has {len(body)} bytes, not a multiple of four")
        if self.dim and len(body) != 4 * self.dim:
            raise Rejected(f"the vector has dimension {len(body) // 4}, not {self.dim}")
        return record.replace(value={**require_mapping(record), self.into: body})


def embed(
    *, model: str, text: str = "text", title: str = "", into: str = "vector", dim: int = 0
) -> Embed:
    """A call that embeds ``value[text]`` with ``model``, ``value[title]`` in front of it if named.

    Raises:
        PipelineError: a name is empty, or ``dim`` is not a length.
    """
    return Embed(model, text, title, into, dim)

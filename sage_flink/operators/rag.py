"""Retrieval-augmented generation: passages into a prompt, and an answer with its sources."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sage_flink.common.records import Record
from sage_flink.common.values import require_field, require_mapping

INSTRUCTIONS = (
    "You answer questions from the context. Use only the context. "
    "Answer in one to three sentences. If the context does not say, say that you do not know."
)


@dataclass(frozen=True, slots=True)
class RagPrompt:
    """``question`` and ``passages`` -> ``messages`` for a chat model.

    ``passages_max`` passages of at most ``passage_chars_max`` characters go in, nearest first, so
    that the prompt fits a small model; the sources keep all that were found.
    """

    instructions: str = INSTRUCTIONS
    passages_max: int = 3
    passage_chars_max: int = 1_200

    def __call__(self, record: Record) -> Iterable[Record]:
        """The record with its messages.

        Raises:
            Rejected: question, earlier messages or passages are missing or of another kind.
        """
        used = require_field(record, "passages", list)[: self.passages_max]
        context = "\n\n".join(self._cite(number, p) for number, p in enumerate(used, 1))
        asked = f"Context:\n{context}\n\nQuestion: {require_field(record, 'question', str)}"
        system = {"role": "system", "content": self.instructions}
        earlier = require_field(record, "messages", list)
        messages = [system, *earlier, {"role": "user", "content": asked}]
        return (record.replace(value={**require_mapping(record), "messages": messages}),)

    def _cite(self, number: int, passage: Mapping[str, Any]) -> str:
        text = require_field(passage, "text", str)[: self.passage_chars_max]
        return f"[{number}] {require_field(passage, 'title', str)}\n{text}"


@dataclass(frozen=True, slots=True)
class AnswerWithSources:
    """What a reader gets: ``{"id", "question", "answer", "sources", "usage"}``.

    One source a document, the score of its nearest passage, nearest first.
    """

    def __call__(self, record: Record) -> Iterable[Record]:
        """The answer.

        Raises:
            Rejected: a field of the answer or of a passage is missing or of another kind.
        """
        nearest: dict[str, dict[str, Any]] = {}
        for passage in require_field(record, "passages", list):
            source = _source(passage)
            nearest.setdefault(source["doc"], source)
        question = {name: require_field(record, name, str) for name in ("id", "question", "answer")}
        outcome = {name: require_field(record, name, object) for name in ("usage", "finish_reason")}
        return (record.replace(value={**question, "sources": list(nearest.values()), **outcome}),)


def _source(passage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "doc": require_field(passage, "doc", str),
        "title": require_field(passage, "title", str),
        "score": round(require_field(passage, "score", float), 4),
        "text": require_field(passage, "text", str)[:300],
    }

"""Retrieval-augmented generation: passages into a prompt, and an answer with its sources."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sage_flink.common.records import Record

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
        """The record with its messages."""
        value = record.value
        used = value["passages"][: self.passages_max]
        context = "\n\n".join(
            f"[{number}] {p['title']}\n{p['text'][: self.passage_chars_max]}"
            for number, p in enumerate(used, 1)
        )
        asked = f"Context:\n{context}\n\nQuestion: {value['question']}"
        system = {"role": "system", "content": self.instructions}
        messages = [system, *value["messages"], {"role": "user", "content": asked}]
        return (record.replace(value={**value, "messages": messages}),)


@dataclass(frozen=True, slots=True)
class AnswerWithSources:
    """What a reader gets: ``{"id", "question", "answer", "sources", "usage"}``.

    One source a document, the score of its nearest passage, nearest first.
    """

    def __call__(self, record: Record) -> Iterable[Record]:
        """The answer."""
        value = record.value
        nearest: dict[str, dict[str, Any]] = {}
        for passage in value["passages"]:
            nearest.setdefault(
                passage["doc"],
                {
                    "doc": passage["doc"],
                    "title": passage["title"],
                    "score": round(passage["score"], 4),
                    "text": passage["text"][:300],
                },
            )
        answer = {
            "id": value["id"],
            "question": value["question"],
            "answer": value["answer"],
            "sources": list(nearest.values()),
            "usage": value["usage"],
            "finish_reason": value["finish_reason"],
        }
        return (record.replace(value=answer),)

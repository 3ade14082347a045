"""Reranking: the documents of the record in the order of their relevance to its query.

Source: POST /v1/rerank as Cohere, Jina and vLLM have it; OpenAI's API has none.
"""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.common.validation import require_name, require_whole_number
from sage_flink.common.values import require_field, require_mapping, require_text


@dataclass(frozen=True, slots=True)
class Rerank:
    """The ``top_n`` most relevant of ``value[documents]`` into ``value[into]``, best first.

    Documents are texts; an entry is ``{"index", "relevance_score"}``, the index that of the
    document in the list.
    """

    model: str
    query: str = "question"
    documents: str = "documents"
    into: str = "ranking"
    top_n: int = 4

    def __post_init__(self) -> None:
        for name in ("model", "query", "documents", "into"):
            require_name("rerank", name, getattr(self, name))
        require_whole_number("rerank", "top_n", self.top_n)

    @property
    def mode(self) -> Literal["post"]:
        """One request a record."""
        return "post"

    @property
    def path(self) -> str:
        """The path that these servers share."""
        return "/v1/rerank"

    def request(self, record: Record) -> bytes:
        """The request's JSON.

        Raises:
            Rejected: the query is missing or empty, or the documents are no list of texts.
        """
        documents = require_field(record, self.documents, list)
        if not documents or not all(isinstance(document, str) for document in documents):
            raise Rejected(f"field {self.documents!r} must be a list of texts, one at least")
        fields = {
            "model": self.model,
            "query": require_text(record, self.query),
            "documents": documents,
            "top_n": self.top_n,
        }
        return msgspec.json.encode(fields)

    def answer(self, record: Record, body: bytes) -> Record:
        """The record with its ranking."""
        documents = require_field(record, self.documents, list)
        try:
            results = msgspec.json.decode(body)["results"]
            ranking = [_entry(result, len(documents)) for result in results]
        except (msgspec.DecodeError, KeyError, IndexError, TypeError) as error:
            raise Rejected(f"{self.model}: the answer is not a ranking: {error}") from error
        ranking.sort(key=lambda entry: -entry["relevance_score"])
        return record.replace(value={**require_mapping(record), self.into: ranking[: self.top_n]})


def _entry(result: dict[str, Any], documents: int) -> dict[str, Any]:
    index, score = result["index"], result["relevance_score"]
    if not isinstance(index, int) or not 0 <= index < documents:
        raise IndexError(f"index {index!r} of {documents} documents")
    return {"index": index, "relevance_score": float(score)}


def rerank(
    *,
    model: str,
    query: str = "question",
    documents: str = "documents",
    into: str = "ranking",
    top_n: int = 4,
) -> Rerank:
    """A call that ranks ``value[documents]`` by relevance to ``value[query]``, the best ``top_n``.

    Raises:
        PipelineError: a name is empty, or ``top_n`` is less than 1.
    """
    return Rerank(model, query, documents, into, top_n)

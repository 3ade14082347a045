"""Retrieval: the passages of a collection nearest to the record's question.

One request: the gateway embeds the question with the collection's model and searches the store.
Source: OpenAI API reference, POST /v1/vector_stores/{id}/search.
"""

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from sage_flink.common.errors import PipelineError, Rejected
from sage_flink.common.records import Record
from sage_flink.common.validation import require, require_name, require_whole_number
from sage_flink.common.values import require_mapping, require_text
from sage_flink.db.filter_text import parse_filter
from sage_flink.db.filters import RowFilter

#: OpenAI's own limit.
TOP_K_MAX = 50


@dataclass(frozen=True, slots=True)
class Retrieve:
    """The ``top_k`` passages nearest to ``value[query]`` into ``value[into]``, nearest first.

    A passage is ``{"doc", "title", "text", "score"}``; the score is cosine similarity. Only
    passages for which the filter ``where`` is true, in the text form of
    :mod:`sage_flink.db.filter_text`.

    A ``hybrid`` one ranks by the words of the question too (BM25) and fuses both rankings by
    their ranks (:class:`sage_flink.db.Rrf`), whose score a passage then has: for questions with
    names, numbers and codes. The collection must have been made with ``full_text=True``; else
    each record is a dead letter that says so.
    """

    collection: str
    top_k: int = 4
    query: str = "question"
    into: str = "passages"
    where: str = ""
    hybrid: bool = False

    def __post_init__(self) -> None:
        for name in ("collection", "query", "into"):
            require_name("retrieve", name, getattr(self, name))
        require_whole_number("retrieve", "top_k", self.top_k)
        require(self.top_k <= TOP_K_MAX, "retrieve", "top_k", f"at most {TOP_K_MAX}", self.top_k)
        text = isinstance(self.where, str)
        require(text, "retrieve", "where", "a filter, or its text", self.where)
        flag = isinstance(self.hybrid, bool)
        require(flag, "retrieve", "hybrid", "true or false", self.hybrid)
        if self.where:
            try:
                parse_filter(self.where)
            except Rejected as error:
                raise PipelineError(f"retrieve: where: {error}") from error

    @property
    def mode(self) -> Literal["post"]:
        """One request a record."""
        return "post"

    @property
    def model(self) -> str:
        """The collection knows its own model."""
        return ""

    @property
    def path(self) -> str:
        """OpenAI's path, with the collection as the vector store."""
        return f"/v1/vector_stores/{quote(self.collection, safe='')}/search"

    def request(self, record: Record) -> bytes:
        """The request's JSON.

        Raises:
            Rejected: the question is missing or empty.
        """
        fields: dict[str, Any] = {
            "query": require_text(record, self.query),
            "max_num_results": self.top_k,
        }
        if self.where:
            fields["filters"] = self.where
        if self.hybrid:
            fields["ranking_options"] = {"ranker": "hybrid"}
        return msgspec.json.encode(fields)

    def answer(self, record: Record, body: bytes) -> Record:
        """The record with its passages."""
        try:
            passages = [_passage(hit) for hit in msgspec.json.decode(body)["data"]]
        except (msgspec.DecodeError, KeyError, IndexError, TypeError) as error:
            raise Rejected(f"{self.collection}: not a page of search results: {error}") from error
        return record.replace(value={**require_mapping(record), self.into: passages})


def _passage(hit: dict[str, Any]) -> dict[str, Any]:
    return {
        "doc": hit["file_id"],
        "title": hit["filename"],
        "text": hit["content"][0]["text"],
        "score": hit["score"],
    }


def retrieve(
    *,
    collection: str,
    top_k: int = 4,
    query: str = "question",
    into: str = "passages",
    where: RowFilter | str = "",
    hybrid: bool = False,
) -> Retrieve:
    """A call that finds the ``top_k`` passages of ``collection`` nearest to ``value[query]``.

    ``where`` leaves out passages: ``sage.db.field("year") >= 2024``, or its text.
    ``hybrid`` counts the words of the question too; see Retrieve.

    Raises:
        PipelineError: the collection is empty, ``top_k`` is not 1 to 50, or ``where`` is no filter.
    """
    text = str(where) if isinstance(where, RowFilter) else where
    return Retrieve(collection, top_k, query, into, text, hybrid)

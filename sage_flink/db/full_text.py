"""Full-text search of the field ``text`` by BM25: its words, its queries, its scores. Pure.

A word is a run of letters and digits, in lower case, that is none of STOP_WORDS; nothing in a query
is an operator. Milvus is given the same stop words, ``BM25_K1`` and ``BM25_B``, so that both stores
rank alike.

BM25 is written here and no package is used: the reference store in memory changes row by row and
needs no numpy, and bm25s and rank-bm25 index a corpus once.

>>> counts = {"a": word_counts("A red fox."), "b": word_counts("The fox and the hound"), "c": {}}
>>> sorted(bm25_scores(word_counts("red fox"), counts)), bm25_scores(word_counts("to be"), counts)
(['a', 'b'], {})

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with
the idf of Lucene, which is never negative; the stop words are those of Lucene's EnglishAnalyzer.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sage_flink.common.errors import Rejected
from sage_flink.db.json_fields import is_unicode
from sage_flink.db.vectors import require_top_k

#: The field that is searched.
TEXT = "text"
QUERY_BYTES_MAX = 65_535
#: How soon a repeated word stops to count, and how much a long text is held back.
BM25_K1, BM25_B = 1.2, 0.75
_LUCENE = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
)
STOP_WORDS = frozenset(_LUCENE.split())
_WORD = re.compile(r"[^\W_]+")


def text_of(fields: Mapping[str, Any]) -> str:
    """The text of a row that is searched; empty where it has none."""
    text = fields.get(TEXT)
    return text if isinstance(text, str) else ""


def query_text(text: str, top_k: int) -> str:
    """The text to search for.

    Raises:
        Rejected: it is empty or no Unicode text, or ``top_k`` is out of range.
    """
    require_top_k(top_k)
    if not isinstance(text, str) or not text.strip():
        raise Rejected(f"search: text must not be empty, got {text!r:.100}")
    if not is_unicode(text):
        raise Rejected(f"search: text is not Unicode text: {text!r:.100}")
    if (size := len(text.encode())) > QUERY_BYTES_MAX:
        raise Rejected(f"search: text must have at most {QUERY_BYTES_MAX} bytes, got {size}")
    return text


def word_counts(text: str) -> Counter[str]:
    """How often the text has each of its words."""
    return Counter(word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS)


def bm25_scores(
    query: Mapping[str, int], texts: Mapping[str, Mapping[str, int]]
) -> dict[str, float]:
    """The scores of the texts that have a word of the query, by key; all are above 0."""
    sizes = {key: sum(counts.values()) for key, counts in texts.items()}
    average = sum(sizes.values()) / max(1, len(sizes))
    scores: dict[str, float] = {}
    for word, weight in query.items():
        found = {key: counts[word] for key, counts in texts.items() if word in counts}
        idf = math.log(1 + (len(texts) - len(found) + 0.5) / (len(found) + 0.5))
        for key, count in found.items():
            length = 1 - BM25_B + BM25_B * sizes[key] / average
            gain = count * (BM25_K1 + 1) / (count + BM25_K1 * length)
            scores[key] = scores.get(key, 0.0) + weight * idf * gain
    return scores

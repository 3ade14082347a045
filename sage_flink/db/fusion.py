"""How the two rankings of a hybrid search, by vectors and by words, become one. Pure.

>>> near, words = [("a", 0.9), ("b", 0.2)], [("b", 7.5)]
>>> [(id, round(score, 5)) for id, score in fuse(near, words, Rrf())]
[('b', 0.03252), ('a', 0.01639)]
>>> [(id, round(score, 5)) for id, score in fuse(near, words, Weighted(dense=1, text=0))]
[('a', 0.95), ('b', 0.6)]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sage_flink.common.errors import ConfigError
from sage_flink.common.validation import require
from sage_flink.db.vectors import TOP_K_MAX

#: A row that is far down in one ranking can still be first in both together.
CANDIDATES_LEAST = 50
#: Milvus's own limit.
K_MAX = 16_383
#: Ids with their scores, best first.
Ranking = Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Rrf:
    """Reciprocal rank fusion: a row scores 1 / (k + rank) in each ranking that has it.

    Ranks begin at 1, so the score is at most 2 / (k + 1). It depends on the ranks alone: a low
    score does not mean that a row fits badly. A smaller ``k`` makes the first ranks count more.

    Source: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and
    individual Rank Learning Methods", SIGIR 2009; k = 60 is theirs.
    """

    k: int = 60

    def __post_init__(self) -> None:
        whole = isinstance(self.k, int) and not isinstance(self.k, bool)
        fits = whole and 1 <= self.k <= K_MAX
        require(fits, "Rrf", "k", f"a whole number, 1 to {K_MAX}", self.k, ConfigError)

    def dense_share(self, rank: int, score: float) -> float:
        """What the rank by vectors adds to a row's score."""
        return 1 / (self.k + rank)

    def text_share(self, rank: int, score: float) -> float:
        """What the rank by words adds to a row's score."""
        return 1 / (self.k + rank)


@dataclass(frozen=True, slots=True)
class Weighted:
    """The sum of both scores, each brought to 0 to 1 and multiplied by its weight.

    Cosine similarity counts as (1 + cosine) / 2, BM25 as 2 / pi * arctan(BM25); a row that a
    ranking does not have gets 0 there. Weights are 0 to 1, not both 0.

    Source: Milvus documentation, "Weighted Ranker".
    """

    dense: float = 0.5
    text: float = 0.5

    def __post_init__(self) -> None:
        for name in ("dense", "text"):
            got = getattr(self, name)
            number = isinstance(got, int | float) and not isinstance(got, bool)
            fits = number and 0 <= got <= 1
            require(fits, "Weighted", name, "a number from 0 to 1", got, ConfigError)
        some = bool(self.dense or self.text)
        require(some, "Weighted", "one weight", "above 0", (self.dense, self.text), ConfigError)

    def dense_share(self, rank: int, score: float) -> float:
        """What the cosine similarity adds to a row's score."""
        return self.dense * (1 + score) / 2

    def text_share(self, rank: int, score: float) -> float:
        """What BM25 adds to a row's score."""
        return self.text * 2 / math.pi * math.atan(score)


Fusion = Rrf | Weighted
RRF = Rrf()


def candidates(top_k: int) -> int:
    """How many rows of each ranking are fused for ``top_k`` hits."""
    return min(TOP_K_MAX, max(CANDIDATES_LEAST, 2 * top_k))


def fuse(dense: Ranking, text: Ranking, fusion: Fusion) -> list[tuple[str, float]]:
    """The rows of both rankings as one; of equal scores the lower id is first."""
    scores = dict.fromkeys((id_ for id_, _ in (*dense, *text)), 0.0)
    for rank, (id_, score) in enumerate(dense, 1):
        scores[id_] += fusion.dense_share(rank, score)
    for rank, (id_, score) in enumerate(text, 1):
        scores[id_] += fusion.text_share(rank, score)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))

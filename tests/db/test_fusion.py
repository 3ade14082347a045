"""Two rankings become one: by ranks, or by weighted scores."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import ConfigError
from sage_flink.db import Rrf, Weighted
from sage_flink.db.fusion import candidates, fuse

RANKINGS = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1, 1)).map(
    lambda scores: sorted(scores.items(), key=lambda item: -item[1])
)


@given(dense=RANKINGS, text=RANKINGS, k=st.integers(1, 1_000))
def test_a_score_by_ranks_is_the_sum_of_the_reciprocal_ranks(dense, text, k):
    ranks = [{id_: rank for rank, (id_, _) in enumerate(ranking, 1)} for ranking in (dense, text)]

    fused = fuse(dense, text, Rrf(k))

    assert dict(fused) == {
        id_: pytest.approx(sum(1 / (k + rank[id_]) for rank in ranks if id_ in rank))
        for id_ in ranks[0] | ranks[1]
    }
    assert fused == sorted(fused, key=lambda item: (-item[1], item[0]))


def test_equal_scores_are_ordered_by_id():
    assert [id_ for id_, _ in fuse([("b", 0.9)], [("a", 3.0)], Rrf())] == ["a", "b"]


def test_a_weighted_score_is_between_0_and_the_sum_of_the_weights():
    fused = dict(fuse([("a", 1.0), ("b", -1.0)], [("a", 1e9), ("c", 1e-9)], Weighted(0.7, 0.3)))

    assert fused == pytest.approx({"a": 1.0, "b": 0.0, "c": 0.0}, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rrf(0), "Rrf: k must be a whole number, 1 to 16383, got 0"),
        (lambda: Rrf(16_384), "Rrf: k must be"),
        (lambda: Rrf(60.0), "Rrf: k must be"),
        (lambda: Rrf(True), "Rrf: k must be"),
        (lambda: Weighted(-0.1, 0.5), "Weighted: dense must be a number from 0 to 1, got -0.1"),
        (lambda: Weighted(0.5, 7), "Weighted: text must be a number from 0 to 1, got 7"),
        (lambda: Weighted(math.nan, 0.5), "Weighted: dense must be"),
        (lambda: Weighted(0.5, math.inf), "Weighted: text must be"),
        (lambda: Weighted("1", 0.5), "Weighted: dense must be"),
        (lambda: Weighted(0, 0), "Weighted: one weight must be above 0"),
    ],
)
def test_an_invalid_fusion_is_refused(make, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        make()


def test_more_rows_than_are_wanted_are_fused():
    assert [candidates(top_k) for top_k in (1, 25, 26, 16_384)] == [50, 50, 52, 16_384]

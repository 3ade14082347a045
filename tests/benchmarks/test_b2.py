"""B2 on the local stack, small: every side runs to its end and loses no record."""

import pytest

from benchmark_sage import b2_saturate

pytestmark = [
    pytest.mark.flink,
    pytest.mark.service,
    pytest.mark.alone,
    pytest.mark.timeout(300),
    # PyFlink leaves its client JVM and its files open until the interpreter ends.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_every_side_of_b2_answers_every_record_once():
    kept = b2_saturate.run(repeats=1, records=300, arms=b2_saturate.ARMS[:1])

    for side, arms in kept.sides.items():
        for arm, rows in arms.items():
            where = f"{side}, {arm}: {rows}"
            assert all(0 < row.get("busy", 0) <= 1 for row in rows), where
            if side != "limit":
                assert all(row["lost"] == row["wrong"] == 0 for row in rows), where
    assert {h.metric for h in kept.headline} >= {"slots busy over limit, lognormal s=1"}

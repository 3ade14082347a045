"""A rollout of model and prompt under load, through three kills of the TaskManager."""

import pytest

from benchmark_sage.recovery.rollout import LAST_ANSWERS, RolloutRun


@pytest.fixture
def rollout(cluster, full, seed, tmp_path, keep):
    """``rollout(name, broadcast=...)``: runs one side of the drill and keeps its row."""

    def rollout(name, *, broadcast):
        cluster.up()
        events_min = 10_000 if full else 1_000
        row = RolloutRun(cluster, broadcast, events_min, tmp_path, seed=seed).run()
        keep(name, row)
        assert row["restarts"] >= 3
        assert row["lost"] == row["duplicated"] == row["both"] == row["wrong"] == 0
        return row

    return rollout


@pytest.mark.full
def test_no_answer_mixes_the_model_and_the_prompt_of_two_versions(rollout):
    row = rollout("rollout", broadcast=True)

    assert row["mixed"] == 0
    assert min(row["of_version_0"], row["of_version_1"]) > LAST_ANSWERS
    assert row["back"] == LAST_ANSWERS  # the last answers are of the version before
    assert row["calls_per_id"] <= 1.02


@pytest.mark.full
def test_without_the_broadcast_join_answers_mix_two_versions(rollout):
    assert rollout("rollout_by_file", broadcast=False)["mixed"] > 0

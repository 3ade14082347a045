"""State belongs to step names: matching state is restored, other state is refused."""

import pytest

from sage_flink.common import PipelineError
from sage_flink.flow.flink.savepoint_state import OperatorState, require_all_restored

SAVED = [
    OperatorState("numbers", 300),
    OperatorState("ask", 4000),
    OperatorState("vectors.batch", 50),
    OperatorState("answers", 287),
    OperatorState("Sink Committer: answers", 319),
]
UIDS = {one.uid for one in SAVED}


def refusal_of(saved, planned, **drop):
    with pytest.raises(PipelineError) as error:
        require_all_restored(saved, planned, path="file:/s", **drop)
    return str(error.value)


def test_the_same_steps_and_more_restore_all_state():
    require_all_restored(SAVED, UIDS, path="file:/s")
    require_all_restored(SAVED, {*UIDS, "again"}, path="file:/s")
    require_all_restored([], {"again"}, path="file:/s")


def test_the_error_for_a_renamed_step_has_both_names_and_the_next_step():
    words = refusal_of(SAVED, UIDS - {"ask"} | {"inquire"})

    assert words == (
        "savepoint file:/s: it holds state of 'ask' (4000 bytes), which the pipeline has not as a "
        "step with state; steps with state that are new: 'inquire'. State follows the step's name: "
        "give the step its old name, or give its state up: --drop-state 'ask'"
    )


def test_all_operators_of_a_step_are_one_step_in_the_message():
    words = refusal_of(SAVED, {"numbers", "ask", "vectors.batch", "replies"})

    assert "state of 'answers' (606 bytes), which" in words
    assert "new: 'replies'." in words
    assert "'vectors'" in refusal_of(SAVED, UIDS - {"vectors.batch"})


def test_state_may_be_dropped_by_the_names_of_all_steps_that_lose_it():
    planned = UIDS - {"ask", "vectors.batch"}

    require_all_restored(SAVED, planned, path="file:/s", drop=("ask", "vectors"))
    words = refusal_of(SAVED, planned, drop=("ask",))

    assert "state of 'vectors' (50 bytes), which" in words
    assert words.endswith("--drop-state 'vectors'")


def test_dropping_a_step_without_lost_state_is_an_error():
    words = refusal_of(SAVED, UIDS - {"ask"}, drop=("aks",))

    assert "no state of 'aks' would be lost" in words
    assert words.endswith("would be lost: 'ask'")


def test_the_state_of_a_drained_job_is_refused():
    words = refusal_of(
        [OperatorState("numbers", 0, ended=True), OperatorState("ask", 0, ended=True)], UIDS
    )

    assert "is of a drained job, whose sources have ended" in words

"""kill -9 of the TaskManager in the middle of the stream, with and without generation ledger."""

import pytest


def test_a_killed_taskmanager_loses_no_record_and_repeats_no_generation(run):
    outcome = run(kill, name="taskmanager")

    assert outcome.is_balanced, outcome
    assert outcome.restarts >= 1
    assert outcome.first_output_s <= 30
    assert outcome.calls_per_id <= 1.02


@pytest.mark.full
def test_without_the_ledger_it_loses_no_record_and_repeats_generations(run, cluster):
    with cluster.without_ledger():
        outcome = run(kill, name="taskmanager_no_ledger")

    assert outcome.is_balanced, outcome
    assert outcome.first_output_s <= 30
    assert outcome.calls_per_id > 1


def kill(running):
    running.cluster.kill("taskmanager", "java")

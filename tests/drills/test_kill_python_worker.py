"""kill -9 of the Python worker of a slot in the middle of the stream."""


def test_a_killed_python_worker_loses_and_duplicates_no_record(run):
    outcome = run(
        lambda running: running.cluster.kill("taskmanager", "beam_boot"), name="python_worker"
    )

    assert outcome.is_balanced, outcome
    assert outcome.restarts == 0
    assert outcome.first_output_s <= 30

"""kill -9 of the JobManager in the middle of the stream."""


def test_a_killed_jobmanager_loses_and_duplicates_no_record(run):
    outcome = run(lambda running: running.cluster.kill("jobmanager", "java"), name="jobmanager")

    assert outcome.is_balanced, outcome
    assert outcome.first_output_s <= 30

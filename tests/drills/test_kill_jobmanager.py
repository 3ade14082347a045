"""kill -9 of the JobManager in the middle of the stream."""


def test_a_killed_jobmanager_loses_nothing_and_doubles_nothing(run):
    outcome = run(lambda running: running.cluster.kill("jobmanager", "java"), name="jobmanager")

    assert outcome.balanced, outcome
    assert outcome.first_output_s <= 30

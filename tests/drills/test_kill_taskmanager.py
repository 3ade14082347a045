"""kill -9 of the TaskManager in the middle of the stream."""


def test_a_killed_taskmanager_loses_nothing_and_doubles_nothing(run):
    outcome = run(lambda running: running.cluster.kill("taskmanager", "java"), name="taskmanager")

    assert outcome.closes, outcome
    assert outcome.restarts >= 1
    assert outcome.first_output_s <= 30

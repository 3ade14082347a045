"""kill -9 of the Python worker of a slot in the middle of the stream."""

from job_restarts import own_restarts


def test_a_killed_python_worker_loses_and_duplicates_no_record(run):
    jobs = []

    def fault(running):
        jobs.append(running.job_id)
        running.cluster.kill("taskmanager", "beam_boot")

    outcome = run(fault, name="python_worker")

    assert outcome.is_balanced, outcome
    assert own_restarts(*jobs) == 0
    assert outcome.first_output_s <= 30

"""The options that every job has, without a word of them in the job."""

import pytest

from sage_flink.flow import FlinkOptions
from sage_jobs.entry import run


def started(*words):
    """What a job's main gets from the command line."""
    got = []

    def main(topic: str = "documents", options: FlinkOptions | None = None) -> None:
        """Submit it."""
        got.append((topic, options))

    with pytest.raises(SystemExit, check=lambda ended: ended.code == 0):
        run(main, words, program="job")
    return got


def test_a_job_gets_its_own_options_and_the_flink_options():
    words = "--topic t --parallelism 2 --from-savepoint latest --drop-state a --drop-state b"
    words += " --bundle-ms 100"

    assert started(*words.split()) == [
        ("t", FlinkOptions(parallelism=2, savepoint="latest", drop_state=("a", "b"), bundle_s=0.1))
    ]


def test_without_options_all_is_as_the_job_and_flink_have_it():
    assert started() == [("documents", FlinkOptions())]


def test_help_lists_both(capsys):
    assert started("--help") == []

    shown = capsys.readouterr().out
    for option in ("--topic", "--parallelism", "--from-savepoint", "--drop-state", "--bundle-ms"):
        assert option in shown

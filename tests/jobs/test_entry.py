"""The command-line options that every job gets without declaring them."""

from pathlib import Path

import pytest

from sage_flink.flow import FlinkOptions
from sage_jobs.entry import report_errors, run


def run_main(*words):
    """The arguments that a job's main gets from the command line."""
    got = []

    def main(topic: str = "documents", options: FlinkOptions | None = None) -> None:
        """Submit it."""
        got.append((topic, options))

    with pytest.raises(SystemExit, check=lambda ended: ended.code == 0):
        run(main, words, program="job")
    return got


def test_a_job_gets_its_own_options_and_the_flink_options():
    words = "--topic t --parallelism 2 --from-savepoint latest --drop-state a --drop-state b"
    words += " --bundle-ms 100 --record-timeout-s 60"
    state = {"savepoint": "latest", "drop_state": ("a", "b")}

    assert run_main(*words.split()) == [
        ("t", FlinkOptions(parallelism=2, **state, bundle_s=0.1, record_timeout_s=60))
    ]


def test_without_options_the_defaults_of_the_job_and_of_flink_apply():
    assert run_main() == [("documents", FlinkOptions())]


def test_help_lists_the_options_of_the_job_and_of_flink(capsys):
    assert run_main("--help") == []

    shown = capsys.readouterr().out
    for option in ("--topic", "--parallelism", "--from-savepoint", "--drop-state", "--bundle-ms"):
        assert option in shown


def test_a_full_disk_is_one_sentence_and_no_traceback(capsys):
    with (
        pytest.raises(SystemExit, check=lambda ended: ended.code == 2),
        report_errors("job"),
        Path("/dev/full").open("w") as file,
    ):
        file.write("x")

    assert capsys.readouterr().err.endswith("; `sage doctor` shows what to do about it\n")


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(FileNotFoundError), report_errors("job"):
        Path("/not/there").read_text()

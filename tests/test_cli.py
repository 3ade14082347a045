"""The command line: its output, and its error messages."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.common import ConfigError, PipelineError, StackError
from sage_flink.platform import stack
from sage_flink.platform.stack.servers import SERVERS


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A new stack directory."""
    for name in ("KAFKA_SERVERS", "FLINK_URL", "MILVUS_URL", "INFLUXDB_URL", "GATEWAY_URL"):
        monkeypatch.delenv(f"SAGE_{name}", raising=False)
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    return tmp_path


def sage(*words):
    return CliRunner().invoke(cli.app, words)


def error_of(*words):
    """The error of a command that fails."""
    done = sage(*words)
    assert done.exit_code
    return done.exception


def status_and_stderr(capsys, monkeypatch, *words):
    """Exit status and stderr of the whole program."""
    monkeypatch.setattr(sys, "argv", ["sage", *words])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return exit_.value.code, capsys.readouterr().err


def test_a_job_is_drawn_as_text_and_as_a_flowchart():
    text, chart = sage("explain", "rag_answer"), sage("explain", "rag_answer", "--form", "mermaid")

    assert text.exit_code == chart.exit_code == 0
    assert text.output.splitlines()[0].startswith("questions")
    assert chart.output.startswith("flowchart LR")


@pytest.mark.parametrize("job", ["rag_answer", "rag_ingest"])
def test_a_job_in_yaml_draws_the_same(job, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(sage("explain", job, "--form", "yaml").output)

    assert sage("explain", str(path)).output == sage("explain", job).output
    assert "steps:" in sage("explain", str(path), "--form", "yaml").output
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(sage("schema").output))


def test_an_error_of_a_yaml_pipeline_names_file_and_line(tmp_path, monkeypatch):
    wrong, unsound = tmp_path / "wrong.yaml", tmp_path / "unsound.yaml"
    wrong.write_text("steps:\n- read: in\n  from:\n    kafka: {topics: in}\n")
    unsound.write_text("steps:\n- read: in\n  from:\n    kafka: {topic: in}\n")
    monkeypatch.setenv("SAGE_FLINK_URL", "http://127.0.0.1:1")

    assert str(error_of("explain", str(wrong))).startswith(f"{wrong}:4: step 'in': unknown field")
    errors = str(error_of("jobs", "submit", str(unsound))).splitlines()
    assert errors[0].startswith(f"{unsound}:2: step 'in': nothing reads its output")
    assert errors[1].startswith(f"{unsound}: pipeline: failed records have nowhere to go")


@pytest.mark.parametrize("command", [("explain",), ("jobs", "submit")])
@pytest.mark.parametrize("name", ["nope", "demo", "../x", "rag_ingest.main"])
def test_the_error_for_an_unknown_job_lists_the_known_jobs(command, name):
    error = error_of(*command, name)

    assert isinstance(error, ConfigError)
    assert str(error).startswith(
        f"no job {name!r}; give one of rag_answer, rag_ingest, sensor_watch, session_summary, "
        "stream_join, or"
    )


PROGRAM = """
import sage_flink as sage
from sage_connectors import kafka
from neighbour import SHOUT

def build():
    lines = sage.flow.read("in", kafka("in")).map("shout", lambda record: record.value + SHOUT)
    return lines.write("out", kafka("out")).dead_letters_to(kafka("failed"))
"""


def test_a_py_file_is_drawn_and_submitted_by_its_build(tmp_path):
    (tmp_path / "neighbour.py").write_text("SHOUT = b'!'\n")
    path = tmp_path / "my_job.py"
    path.write_text(PROGRAM)

    lines = sage("explain", str(path)).output.splitlines()
    shown = sage("jobs", "submit", str(path), "--help")

    assert [line.split()[0] for line in lines] == ["in", "shout", "out", "dead-letters"]
    assert "--parallelism" in shown.output
    assert "my_job" in shown.output


def test_a_py_file_without_a_pipeline_is_refused_with_what_it_needs(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "odd.py").write_text("import no_such_package\n")

    assert "empty.py: needs a function build()" in str(
        error_of("explain", str(tmp_path / "empty.py"))
    )
    assert "odd.py needs no_such_package" in str(error_of("explain", str(tmp_path / "odd.py")))


@pytest.mark.parametrize("command", [("explain",), ("jobs", "submit")])
def test_a_py_file_that_is_missing_is_refused(command):
    assert str(error_of(*command, "job.py")).startswith("job.py: No such file or directory; give")


def test_the_error_for_a_job_with_a_missing_package_names_the_package(tmp_path, monkeypatch):
    import sage_jobs

    (tmp_path / "odd.py").write_text("import no_such_package\n\ndef build(): ...\n")
    monkeypatch.setattr(sage_jobs, "__path__", [str(tmp_path)])

    assert "job 'odd' needs no_such_package" in str(error_of("explain", "odd"))


def test_an_unknown_form_is_refused_with_the_known_forms():
    assert "text, mermaid or yaml, got 'svg'" in str(
        error_of("explain", "rag_ingest", "--form", "svg")
    )


@pytest.mark.parametrize("command", [("explain",), ("jobs", "submit")])
def test_the_error_for_a_missing_yaml_file_names_the_alternatives(command):
    error = error_of(*command, "nowhere.yaml")

    assert str(error) == (
        "nowhere.yaml: No such file or directory; "
        "give the path of a .py or YAML file, or a job: "
        "rag_answer, rag_ingest, sensor_watch, session_summary, stream_join"
    )


def test_a_yaml_file_that_is_not_text_or_not_a_pipeline_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "b.yaml").write_text("steps: 3")

    assert "not UTF-8 text" in str(error_of("explain", str(tmp_path / "a.yaml")))
    assert isinstance(error_of("explain", str(tmp_path / "b.yaml")), PipelineError)


def test_a_yaml_pipeline_takes_the_options_of_a_job(tmp_path):
    (tmp_path / "p.yaml").write_text("steps: 3")

    shown = sage("jobs", "submit", str(tmp_path / "p.yaml"), "--help")
    wrong = sage("jobs", "submit", str(tmp_path / "p.yaml"), "--parallel", "4")

    assert "--parallelism" in shown.output
    assert wrong.exit_code == 2


def test_the_error_text_keeps_its_brackets(capsys, monkeypatch):
    text = "needs 'sage-flink[kafka]' [/not markup] :warning: " + "long " * 40

    def up(*_, **__):
        raise StackError(text)

    monkeypatch.setattr(stack, "up", up)

    assert status_and_stderr(capsys, monkeypatch, "up") == (2, f"sage: {text}\n")


def test_a_jobs_own_output_and_status_are_passed_on(capsys, monkeypatch):
    words = "rag_ingest: Kafka is away:\n  one\n  two [x]\n"
    failed = SimpleNamespace(returncode=2, stdout="", stderr=words)
    monkeypatch.setenv("SAGE_FLINK_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)

    assert status_and_stderr(capsys, monkeypatch, "jobs", "submit", "rag_ingest") == (2, words)


def test_a_job_that_fails_is_one_message(home):
    (home / "stack.json").write_text("{")

    done = subprocess.run(
        [sys.executable, "-m", "sage_jobs.rag_ingest"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "rag_ingest: settings in" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_before_the_pipeline_is_that_of_submit_and_after_it_that_of_the_job(monkeypatch):
    ran = []

    def run(command, **_):
        ran.append(command[1:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)

    assert "Start a pipeline as a Flink job" in sage("jobs", "submit", "--help").output
    assert sage("jobs", "submit", "rag_ingest", "--help").exit_code == 0
    assert ran == [["-m", "sage_jobs.rag_ingest", "--help"]]
    assert "give the pipeline first" in str(error_of("jobs", "submit", "--parallelism", "2", "x"))


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("show", "x"),
        ("cancel", "x"),
        ("stop", "x"),
        ("stop", "x", "--savepoint"),
        ("rescale", "x", "2"),
        ("savepoints", "x"),
        ("submit", "rag_ingest"),
    ],
)
def test_without_a_stack_the_default_port_is_not_contacted(words, home):
    assert f"no stack in {home}; run `sage up`" in str(error_of("jobs", *words))


def test_a_folder_for_a_savepoint_needs_a_savepoint():
    assert "give --savepoint as well" in str(error_of("jobs", "stop", "x", "--to", "folder"))


def test_ps_without_a_stack_names_the_command_to_start_it():
    done = sage("ps")

    assert done.exit_code == 0
    assert "the stack is not running; start it with `sage up`" in done.output
    assert {server["state"] for server in json.loads(sage("ps", "--json").output)} == {"stopped"}


def test_all_commands_take_the_same_server_names(home):
    (home / "logs").mkdir()
    for server in SERVERS:
        (home / "logs" / f"{server}.log").write_text("".join(f"{server} {n}\n" for n in range(99)))

    for name in (*SERVERS, "flink"):
        assert sage("url", name).exit_code == 0
        assert sage("logs", name).exit_code == 0
        assert name in sage("up", "--help").output
    for command in ("url", "logs", "up"):
        assert "jobmanager" in str(error_of(command, "redis"))


def test_logs_prints_the_end_of_a_log_and_of_both_of_flinks(home):
    (home / "logs").mkdir()
    for server in ("jobmanager", "taskmanager"):
        (home / "logs" / f"{server}.log").write_text("one\ntwo\nthree\n")

    assert sage("logs", "jobmanager", "-n", "2").output == "two\nthree\n"
    assert sage("logs", "flink", "-n", "1").output == (
        "==> jobmanager <==\nthree\n==> taskmanager <==\nthree\n"
    )


def test_the_version_is_the_packages():
    assert sage("--version").output.startswith("sage 0.")


def test_help_fits_eighty_columns():
    lines = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "80"}).output.splitlines()

    assert max(map(len, lines)) <= 80
    assert any("explain" in line and "without starting it." in line for line in lines)


def test_characters_that_the_locale_does_not_have_are_printed_as_question_marks(tmp_path):
    environment = {**os.environ, "SAGE_HOME": str(tmp_path / "größe"), "LC_ALL": "C"}
    environment |= {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", "from sage_flink.cli import main; main()", "jobs", "list"]

    done = subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False)

    assert done.returncode == 2
    assert b"gr??" in done.stderr
    assert b"run `sage up`" in done.stderr

"""Class archives: one that a JVM wrote completely, after a job, is used from the next start on."""

import os
import subprocess
from pathlib import Path

import pytest

from sage_flink.common.settings import sage_home
from sage_flink.platform.stack.class_archive import archive_options
from sage_flink.platform.stack.stack_directory import StackDirectory

pytestmark = pytest.mark.processes

PROGRAM = "org.apache.flink.runtime.util.bash.BashJavaUtils"


@pytest.fixture
def classes(tmp_path, monkeypatch):
    """The class path of a small program of Flink."""
    flink = StackDirectory.at(sage_home()).pyflink
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    own = tmp_path / "own.jar"
    own.write_bytes((flink / "bin" / "bash-java-utils.jar").read_bytes())
    return os.pathsep.join(map(str, (own, *sorted((flink / "lib").glob("*.jar")))))


def run_program(role, classes, folder):
    """The archive that a JVM wrote to the place that it was told."""
    options = archive_options(role, classes, folder)
    subprocess.run(["java", *options, "-cp", classes, PROGRAM], capture_output=True, check=False)
    assert options[0].startswith("-XX:ArchiveClassesAtExit=")
    return Path(options[0].split("=", 1)[1])


def test_an_archive_is_used_from_the_next_start_on_by_every_stack(tmp_path, classes):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    run_program("jobmanager", classes, tmp_path / "first")

    uses = [archive_options("jobmanager", classes, tmp_path / n) for n in ("first", "second")]

    assert uses[0] == uses[1]
    assert uses[0][0].startswith(f"-XX:SharedArchiveFile={tmp_path}/cache/class-archives/")
    assert list((tmp_path / "first").iterdir()) == []


def test_an_archive_without_the_classes_of_jobs_is_written_again(tmp_path, classes):
    run_program("taskmanager", classes, tmp_path)

    assert archive_options("taskmanager", classes, tmp_path)[0].startswith("-XX:ArchiveClasses")
    assert list(tmp_path.glob("*.jsa")) == []


@pytest.mark.parametrize("part", [0.0, 0.9])
def test_an_archive_that_was_cut_off_is_written_again(tmp_path, classes, part):
    archive = run_program("jobmanager", classes, tmp_path)
    archive.chmod(0o600)
    os.truncate(archive, int(archive.stat().st_size * part))

    assert archive_options("jobmanager", classes, tmp_path)[0].startswith("-XX:ArchiveClasses")
    assert list(tmp_path.glob("*.jsa")) == []


def test_an_archive_of_other_classes_is_not_used(tmp_path, classes):
    run_program("jobmanager", classes, tmp_path)
    archive_options("jobmanager", classes, tmp_path)
    os.utime(tmp_path / "own.jar", (1, 1))

    assert archive_options("jobmanager", classes, tmp_path)[0].startswith("-XX:ArchiveClasses")

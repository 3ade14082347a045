"""Class archives: one that a JVM wrote completely, after a job, is used from the next start on."""

import os
import subprocess
from pathlib import Path

import pytest

from sage_flink.common.settings import sage_home
from sage_flink.platform.stack.class_archive import archive_options, keep_archive
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


def run_program(classes, folder):
    """The archive that a JVM wrote to the place that it was told."""
    folder.mkdir(exist_ok=True)
    options = archive_options(classes, folder)
    subprocess.run(["java", *options, "-cp", classes, PROGRAM], capture_output=True, check=False)
    assert options[0].startswith("-XX:ArchiveClassesAtExit=")
    return Path(options[0].split("=", 1)[1])


def is_written_again(classes, folder):
    """Whether the next JVM writes an archive, and none is there."""
    writes = archive_options(classes, folder)[0].startswith("-XX:ArchiveClassesAtExit=")
    return writes and not list(folder.glob("*.jsa"))


def test_an_archive_is_used_from_the_next_start_on_by_every_stack(tmp_path, classes):
    run_program(classes, tmp_path / "first")

    keep_archive(classes, tmp_path / "first", b"BashJavaUtils")

    uses = [archive_options(classes, tmp_path / name) for name in ("first", "second")]
    assert uses[0] == uses[1]
    assert uses[0][0].startswith(f"-XX:SharedArchiveFile={tmp_path}/cache/class-archives/")
    assert list((tmp_path / "first").iterdir()) == []


def test_an_archive_without_the_classes_of_jobs_is_written_again(tmp_path, classes):
    run_program(classes, tmp_path / "first")

    keep_archive(classes, tmp_path / "first")

    assert is_written_again(classes, tmp_path / "first")


@pytest.mark.parametrize("part", [0.0, 0.9])
def test_an_archive_that_was_cut_off_is_written_again(tmp_path, classes, part):
    archive = run_program(classes, tmp_path / "first")
    archive.chmod(0o600)
    os.truncate(archive, int(archive.stat().st_size * part))

    keep_archive(classes, tmp_path / "first", b"")

    assert is_written_again(classes, tmp_path / "first")


def test_an_archive_of_other_classes_is_not_used(tmp_path, classes):
    run_program(classes, tmp_path / "first")
    keep_archive(classes, tmp_path / "first", b"")
    os.utime(tmp_path / "own.jar", (1, 1))

    assert is_written_again(classes, tmp_path / "first")

"""Savepoints and checkpoints of a job: how they are listed, and the choice of the latest."""

import os

import pytest
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.cli import state
from sage_flink.common import ConfigError
from sage_flink.common.errors import NotFound
from sage_flink.platform.savepoints import StateFolders, list_states, resolve_state

# Flink reads the text behind file:// as it is, so these are the names on disk and in its URIs.
SAVEPOINTS, CHECKPOINTS = "team@corp/größe 100%/a%20b", "checkpoints/a%20b"


@pytest.fixture
def folders(tmp_path):
    return StateFolders(f"file://{tmp_path / SAVEPOINTS}", f"file://{tmp_path / CHECKPOINTS}")


@pytest.fixture
def create_state(tmp_path):
    """Creates a state of the job ``a b``, some seconds after the first one."""

    def add_state(place, seconds):
        path = tmp_path / place / "_metadata"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1_000_000 + seconds,) * 2)
        return f"file://{path.parent}"

    return add_state


def test_states_are_listed_newest_first_with_their_kind(folders, create_state):
    first = create_state(f"{SAVEPOINTS}/savepoint-1", 0)
    last = create_state(f"{CHECKPOINTS}/0af/chk-7", 20)
    middle = create_state(f"{SAVEPOINTS}/drained/savepoint-2", 10)

    assert [(one.kind, one.path) for one in list_states(folders)] == [
        ("checkpoint", last),
        ("drained", middle),
        ("savepoint", first),
    ]


def test_an_incomplete_state_is_not_listed(folders, tmp_path):
    (tmp_path / SAVEPOINTS / "savepoint-1").mkdir(parents=True)

    assert list_states(folders) == []


def test_latest_is_the_newest_savepoint_or_checkpoint(folders, create_state):
    create_state(f"{CHECKPOINTS}/0af/chk-7", 0)
    newest = create_state(f"{SAVEPOINTS}/savepoint-1", 1)

    assert resolve_state("latest", "a b", folders) == newest


def test_latest_is_refused_when_the_job_has_no_state(folders):
    with pytest.raises(NotFound, match="job 'a b' has no savepoint and no retained checkpoint"):
        resolve_state("latest", "a b", folders)


def test_after_a_drain_latest_does_not_fall_back_to_an_older_state(folders, create_state):
    create_state(f"{SAVEPOINTS}/savepoint-1", 0)
    create_state(f"{SAVEPOINTS}/drained/savepoint-2", 1)

    with pytest.raises(NotFound, match=r"was drained last.*sage jobs savepoints a b"):
        resolve_state("latest", "a b", folders)


def test_a_path_becomes_a_uri_and_a_uri_stays(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert resolve_state("s/savepoint-1", "x", folders) == f"file://{tmp_path}/s/savepoint-1"
    assert resolve_state("s3://bucket/x", "x", folders) == "s3://bucket/x"
    assert resolve_state("", "x", folders) == ""
    assert resolve_state("/team@corp/größe", "x", folders) == "file:///team@corp/größe"


def test_folders_on_another_machine_cannot_be_listed():
    with pytest.raises(ConfigError, match="s3://bucket/x, which is not on this machine"):
        list_states(StateFolders("s3://bucket/x", ""))


def test_the_list_keeps_each_path_on_one_line(folders, create_state, monkeypatch):
    path = create_state(f"{SAVEPOINTS}/savepoint-{'1' * 90}", 0)
    monkeypatch.setattr(state, "folders_of", lambda *_: folders)
    monkeypatch.setenv("SAGE_FLINK_URL", "http://127.0.0.1:1")

    done = CliRunner().invoke(cli.app, ["jobs", "savepoints", "a b"], env={"COLUMNS": "80"})

    lines = [line.split(maxsplit=3) for line in done.output.splitlines()[1:]]
    assert [(kind, rest.rstrip()) for _, _, kind, rest in lines] == [("savepoint", path)]

"""Where the states of a job lie, and which of them is the latest."""

import os

import pytest

from sage_flink.common import ConfigError
from sage_flink.common.errors import NotFound
from sage_flink.platform.savepoints import StateFolders, found, resolved

SAVEPOINTS, CHECKPOINTS = "savepoints/a b", "checkpoints/a b"


@pytest.fixture
def folders(tmp_path):
    return StateFolders((tmp_path / SAVEPOINTS).as_uri(), (tmp_path / CHECKPOINTS).as_uri())


@pytest.fixture
def lay(tmp_path):
    """A state of the job ``a b``, so many seconds after the first."""

    def laid(place, seconds):
        path = tmp_path / place / "_metadata"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1_000_000 + seconds,) * 2)
        return path.parent.as_uri()

    return laid


def test_states_are_listed_newest_first_with_what_they_are(folders, lay):
    first = lay(f"{SAVEPOINTS}/savepoint-1", 0)
    last = lay(f"{CHECKPOINTS}/0af/chk-7", 20)
    middle = lay(f"{SAVEPOINTS}/drained/savepoint-2", 10)

    assert [(one.kind, one.path) for one in found(folders)] == [
        ("checkpoint", last),
        ("drained", middle),
        ("savepoint", first),
    ]


def test_a_state_that_is_not_whole_is_none(folders, tmp_path):
    (tmp_path / SAVEPOINTS / "savepoint-1").mkdir(parents=True)

    assert found(folders) == []


def test_latest_is_the_newest_savepoint_or_checkpoint(folders, lay):
    lay(f"{CHECKPOINTS}/0af/chk-7", 0)
    newest = lay(f"{SAVEPOINTS}/savepoint-1", 1)

    assert resolved("latest", "a b", folders) == newest


def test_without_a_state_there_is_no_latest(folders):
    with pytest.raises(NotFound, match="job 'a b' has no savepoint and no retained checkpoint"):
        resolved("latest", "a b", folders)


def test_after_a_drain_an_older_state_is_not_taken_by_itself(folders, lay):
    lay(f"{SAVEPOINTS}/savepoint-1", 0)
    lay(f"{SAVEPOINTS}/drained/savepoint-2", 1)

    with pytest.raises(NotFound, match=r"was drained last.*sage jobs savepoints a b"):
        resolved("latest", "a b", folders)


def test_a_path_becomes_a_uri_and_a_uri_stays(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert resolved("s/savepoint-1", "x", folders) == (tmp_path / "s/savepoint-1").as_uri()
    assert resolved("s3://bucket/x", "x", folders) == "s3://bucket/x"
    assert resolved("", "x", folders) == ""


def test_folders_that_are_elsewhere_cannot_be_listed():
    with pytest.raises(ConfigError, match="s3://bucket/x, which is not on this machine"):
        found(StateFolders("s3://bucket/x", ""))

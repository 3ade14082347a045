"""Links in plain characters to paths that Flink, Kafka and their kin do not take."""

import os
from pathlib import Path

import pytest

from sage_flink.common import ConfigError
from sage_flink.platform import plain_paths
from sage_flink.platform.plain_paths import is_plain, plain_path

ODD_NAMES = [
    "a b",
    "größe",
    "team@corp",
    "100%",
    "a#b",
    "a,b",
    "quo'te\"s",
    "semi;$(x)",
    "back\\slash",
]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shared(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_paths, "SHARED_FOLDER", tmp_path / "shared")
    return tmp_path / "shared" / f"sage-{os.getuid()}"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_with_other_characters_is_reached_through_a_plain_link(tmp_path, cache, name):
    folder = tmp_path / name
    folder.mkdir()

    link = plain_path(folder)

    assert is_plain(link)
    assert link.samefile(folder)
    assert plain_path(folder) == link


def test_a_plain_path_stays_and_makes_no_file(tmp_path, cache):
    assert plain_path(tmp_path) == tmp_path
    assert not cache.exists()


def test_a_link_that_leads_elsewhere_is_replaced(tmp_path, cache):
    link = plain_path(tmp_path / "a b")
    link.unlink()
    link.symlink_to("/nowhere")

    assert plain_path(tmp_path / "a b").readlink() == tmp_path / "a b"


def test_a_cache_that_is_not_plain_either_is_replaced_by_a_private_shared_folder(
    tmp_path, shared, monkeypatch
):
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "my cache"))

    link = plain_path(tmp_path / "a b")

    assert link.parent == shared
    assert shared.stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "my cache").exists()


def test_a_cache_that_cannot_be_written_is_replaced_too(tmp_path, shared, monkeypatch):
    monkeypatch.setenv("SAGE_CACHE", "/proc/cache")

    assert plain_path(tmp_path / "a b").parent == shared


def test_a_folder_of_another_user_is_refused_with_the_variable_to_set(
    tmp_path, shared, monkeypatch
):
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "my cache"))
    shared.parent.mkdir()
    shared.symlink_to(tmp_path)  # made by somebody else, to catch our link

    with pytest.raises(ConfigError, match=r"(?s)belongs to another user.*set SAGE_CACHE"):
        plain_path(tmp_path / "a b")
    assert not [path for path in tmp_path.iterdir() if path.is_symlink()]


def test_two_paths_have_two_links(tmp_path, cache):
    assert plain_path(Path("/a b")) != plain_path(Path("/a  b"))

"""Where settings and downloads are found."""

import pathlib

import pytest

from sage_flink.common import ConfigError
from sage_flink.common.settings import sage_cache


def test_a_user_without_a_home_folder_gets_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> pathlib.Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", home)
    for name in ("SAGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(ConfigError, match="no home folder; set HOME or SAGE_CACHE"):
        sage_cache()


def test_the_cache_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert str(sage_cache()) == "/a"

    monkeypatch.delenv("SAGE_CACHE")
    assert str(sage_cache()) == "/b/sage"

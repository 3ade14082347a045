"""The interpreter that Flink starts for Python workers."""

import subprocess
import sys
from pathlib import Path

import pytest

from sage_flink.common import ConfigError
from sage_flink.platform.worker_python import worker_python


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def environment(tmp_path):
    """An environment at a path with a blank in it, like those of `python -m venv`."""
    made = tmp_path / "an environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    return made


def test_a_path_without_white_space_is_used_as_it_is(cache):
    assert worker_python("/usr/bin/python3", "/usr") == "/usr/bin/python3"
    assert not cache.exists()


def test_a_path_with_white_space_is_replaced_by_a_link_to_the_same_environment(environment):
    python = worker_python(str(environment / "bin" / "python"), str(environment))

    assert " " not in python
    where = [python, "-c", "import sys; print(sys.prefix)"]
    prefix = subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(prefix).samefile(environment)


def test_the_link_is_created_once(environment, cache):
    made = {worker_python(str(environment / "bin" / "python"), str(environment)) for _ in range(2)}

    assert len(made) == 1
    assert len(list((cache / "python").iterdir())) == 1


def test_a_cache_with_white_space_is_refused_and_its_variable_named(
    environment, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "my cache"))

    with pytest.raises(ConfigError, match="set SAGE_CACHE to a folder without"):
        worker_python(str(environment / "bin" / "python"), str(environment))

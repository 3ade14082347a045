"""The interpreter that Flink starts for Python workers."""

import subprocess
import sys
from pathlib import Path

import pytest

from sage_flink.platform.plain_paths import is_plain
from sage_flink.platform.worker_python import worker_python


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def environment(tmp_path):
    """An environment like those of `python -m venv`, at a path that Flink would not take."""
    made = tmp_path / "größe @ 100%#"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    return made


def test_a_plain_path_is_used_as_it_is(cache):
    assert worker_python("/usr/bin/python3", "/usr") == "/usr/bin/python3"
    assert not cache.exists()


def test_any_other_path_is_replaced_by_a_link_to_the_same_environment(environment):
    python = worker_python(str(environment / "bin" / "python"), str(environment))

    assert is_plain(Path(python))
    where = [python, "-c", "import sys; print(sys.prefix)"]
    prefix = subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(prefix).samefile(environment)

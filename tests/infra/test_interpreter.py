"""The interpreter that setup builds its environments on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIND = """
set -euo pipefail
repo=$1
uv_path() { echo /somewhere/uv; }
. infra/setup/checks.sh
find_python
printf '%s\\n' "$python" "$python_build"
"""


@pytest.fixture
def choose_python(tmp_path):
    """``choose_python((name, rank), ...)``: path and build that setup chooses from PATH."""

    def choose_python(*interpreters):
        folders = []
        for number, (name, rank) in enumerate(interpreters):
            folder = tmp_path / str(number)
            folder.mkdir()
            answer = f"echo '{rank}\t{folder / name}\t3.11.7'" if rank else "exit 1"
            (folder / name).write_text(f"#!/bin/sh\n{answer}\n")
            (folder / name).chmod(0o755)
            folders.append(str(folder))
        path = os.pathsep.join([*folders, "/usr/bin", "/bin"])
        line = ["bash", "-c", FIND, "bash", str(ROOT)]
        done = subprocess.run(
            line, cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=True
        )
        python, build = done.stdout.splitlines()
        return python.removeprefix(f"{tmp_path}/"), build.replace(f"{tmp_path}/", "")

    return choose_python


def test_the_first_interpreter_built_with_optimisations_is_chosen(choose_python):
    python, build = choose_python(("python3.11", 2), ("python3.11", 1), ("python3.11", 1))

    assert python == "1/python3.11"
    assert build == "built with optimisations, as 0/python3.11 is not"


def test_the_first_interpreter_on_path_is_kept_if_it_is_optimised(choose_python):
    assert choose_python(("python3.11", 1), ("python3.11", 1)) == (
        "0/python3.11",
        "built with optimisations",
    )


def test_an_interpreter_that_does_not_run_is_skipped(choose_python):
    assert choose_python(("python3.11", 0), ("python3.11", 1))[0] == "1/python3.11"


def test_an_activated_environment_is_not_its_own_base(tmp_path):
    line = [sys.executable, "-I", "-B", ROOT / "infra" / "setup" / "interpreter.py"]
    answer = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split("\t")

    assert sys.prefix != sys.base_prefix
    assert Path(answer[1]).is_relative_to(sys.base_prefix)

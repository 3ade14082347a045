"""What setup refuses before it makes anything, and what it does after it was killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = """
set -euo pipefail
repo=$PWD cache=$1 home=$1 native_hash=1 mock_hash=1
. infra/setup/say.sh
. infra/setup/steps.sh
. infra/setup/checks.sh
"""


def bash(script, *arguments, environment=None, cwd=ROOT):
    line = ["bash", "-c", script, "bash", *map(str, arguments)]
    return subprocess.run(
        line, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=30
    )


def setup(**environment):
    environment = {**os.environ, **environment}
    return bash("bash infra/setup.sh", environment=environment)


@pytest.mark.parametrize("variable", ["SAGE_HOME", "SAGE_CACHE"])
@pytest.mark.parametrize("name", ["a:b", "new\nline"])
def test_a_path_that_cannot_work_is_refused_before_anything_is_made(tmp_path, variable, name):
    folders = {"SAGE_HOME": str(tmp_path / "home"), "SAGE_CACHE": str(tmp_path / "cache")}

    done = setup(**{**folders, variable: str(tmp_path / name)})

    assert done.returncode == 1
    assert f"{variable} is" in done.stderr
    assert "may not hold a colon or a control character" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", ["SAGE_HOME", "SAGE_CACHE"])
def test_a_folder_that_cannot_be_written_is_named_before_anything_is_made(tmp_path, variable):
    folders = {"SAGE_HOME": str(tmp_path / "home"), "SAGE_CACHE": str(tmp_path / "cache")}

    (tmp_path / "file").touch()  # whoever runs this, root too, can make no folder below a file

    done = setup(**{**folders, variable: str(tmp_path / "file" / "sage")})

    assert done.returncode == 1
    assert f"a {variable} that you may write; {tmp_path / 'file'} is not" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_is_too_small_is_named_with_what_is_needed(tmp_path):
    script = PARTS + 'check_folder SAGE_HOME "$1" 999999999; printf "%s\\n" "${missing[@]}"'

    done = bash(script, tmp_path / "not" / "there")

    assert "999999999 MiB of disk space in SAGE_HOME" in done.stdout
    assert "set SAGE_HOME to a folder on a larger disk" in done.stdout


def test_a_script_that_checks_for_python_finds_it(tmp_path):
    done = bash(PARTS + 'python=""; check_python; echo "$python" "${missing[@]}"', tmp_path)

    assert Path(done.stdout.strip()).is_file(), done.stdout


def test_the_scratch_folder_of_a_killed_run_is_removed_and_that_of_a_live_one_stays(tmp_path):
    work = PARTS + 'mkdir -p "$cache/locks"; make_work_folder; touch "$work/made"; echo "$work"; '
    killed = Path(bash(work + "kill -9 $$", tmp_path).stdout.strip())
    assert killed.exists()
    line = ["bash", "-c", work + "read -r _", "bash", tmp_path]

    with subprocess.Popen(
        line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as alive:
        held = Path(alive.stdout.readline().strip())
        mine = Path(bash(work, tmp_path).stdout.strip())
        alive.communicate("\n")

    assert not killed.exists()
    assert (held / "made").exists()
    assert (mine / "made").exists()


def test_an_environment_without_a_stamp_is_made_again(tmp_path):
    """An install that was killed has packages that look complete."""
    venv = tmp_path / "venv"
    script = (
        PARTS
        + """
python=/usr/bin/python3
uv_path() { echo fake_uv; }
is_of_python() { true; }
fake_uv() { printf '%s\\n' "$*"; }
fill_venv "$2" package
"""
    )
    venv.mkdir()

    first = bash(script, tmp_path, venv).stdout.splitlines()
    (venv / ".stamp").touch()
    again = bash(script, tmp_path, venv).stdout.splitlines()

    assert first[0].startswith("venv --clear")
    assert [line.split()[0] for line in again] == ["pip"]
    assert not (venv / ".stamp").exists()


def test_python_starts_in_every_locale_though_a_checkout_has_an_umlaut(tmp_path):
    code, environment = tmp_path / "größe", tmp_path / "venv"
    code.mkdir()
    (code / "found.py").write_text("print('found')")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python3*/site-packages")
    (packages / "checkout.pth").write_bytes(os.fsencode(code) + b"\n")

    subprocess.run([sys.executable, ROOT / "infra/setup/ascii_pth.py", environment], check=True)

    for locale in ({"LC_ALL": "POSIX"}, {"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}):
        line = [environment / "bin" / "python", "-c", "import found"]
        done = subprocess.run(line, env=locale, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("found\n", "")


def test_a_user_without_a_home_folder_gets_one_sentence():
    done = bash("bash infra/setup.sh", environment={"PATH": os.environ["PATH"]})

    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.endswith("HOME: is not set; set it to a folder that you may write")

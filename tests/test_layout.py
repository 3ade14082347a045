"""The tree is the list of concepts: nothing at the top that the design does not name."""

import importlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOP = {
    "pyproject.toml",
    "sage_flink",
    "connectors",
    "jobs",
    "gateway",
    "infra",
    "benchmarks",
    "tests",
    "README.md",
    "LICENSE",
}
FOLDERS = sorted(name for name in TOP if (ROOT / name).is_dir())


def test_the_top_holds_what_the_design_names():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    tops = {path.split("/")[0] for path in listed}

    assert {name for name in tops if not name.startswith(".")} == TOP


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_says_what_lives_in_it_in_forty_lines(folder):
    lines = (ROOT / folder / "README.md").read_text().splitlines()

    assert 5 <= len(lines) <= 40


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize(
    "door",
    [
        "sage_flink",
        "sage_flink.common",
        "sage_flink.flow",
        "sage_flink.db",
        "sage_flink.tsdb",
        "sage_flink.inference",
        "sage_flink.operators",
        "sage_connectors",
    ],
)
def test_what_a_door_exports_is_there_and_sorted(door):
    module = importlib.import_module(door)

    assert list(module.__all__) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)

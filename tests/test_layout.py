"""The layout of the repository: its top level has exactly the entries that the design names."""

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


def test_the_top_level_has_exactly_the_entries_of_the_design():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    tops = {path.split("/")[0] for path in listed}

    assert {name for name in tops if not name.startswith(".")} == TOP


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_has_a_readme_of_at_most_forty_lines(folder):
    lines = (ROOT / folder / "README.md").read_text().splitlines()

    assert 5 <= len(lines) <= 40


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize(
    "package",
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
def test_the_names_that_a_package_exports_exist_and_are_sorted(package):
    module = importlib.import_module(package)

    assert list(module.__all__) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)

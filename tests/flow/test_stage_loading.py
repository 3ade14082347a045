"""Stages of one worker are loaded in threads; what they import may belong together."""

import importlib
import json
import subprocess
import sys

import cloudpickle
import pytest

from sage_flink.flow import FlatMap
from sage_flink.flow.flink.python_steps import FlatMapStep
from sage_flink.flow.flink.stage import Stage

# Beam, which PyFlink loads, warns of its own age; the class of the warning is pyparsing's.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PACKAGE = """
from slow_package.steps import work
def other(record):
    return [record]
"""
#: Loads the pickles in threads of their own from a slow disk, and prints the errors.
LOAD = """
import json, pickle, sys, threading, time
from importlib.machinery import PathFinder
import sage_flink.flow.flink.stage  # as the first stage of a worker does
sys.path.insert(0, sys.argv[1])
class SlowFinder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "slow_package":
            spec = PathFinder.find_spec(name, path, target)
            spec.loader.create_module = lambda spec: time.sleep(0.5)
            return spec
sys.meta_path.insert(0, SlowFinder)
errors = []
def load(path):
    try:
        pickle.load(open(path, "rb"))
    except BaseException as error:
        errors.append(type(error).__name__)
threads = [threading.Thread(target=load, args=(path,)) for path in sys.argv[2:]]
for thread in threads:
    thread.start()
    time.sleep(0.1)
for thread in threads:
    thread.join()
print(json.dumps(errors))
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that imports its own module."""
    folder = tmp_path / "slow_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE)
    (folder / "steps.py").write_text("def work(record):\n    return [record]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("slow_package")
    del sys.modules["slow_package"], sys.modules["slow_package.steps"]


def errors_of_loading(folder, things):
    paths = []
    for number, thing in enumerate(things):
        paths.append(folder / f"{number}.pickle")
        paths[-1].write_bytes(cloudpickle.dumps(thing))
    command = [sys.executable, "-W", "ignore", "-c", LOAD, str(folder), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def stage_of(function):
    return Stage((FlatMapStep(FlatMap("f", "in", function)),), "job", "job")


def test_stages_whose_functions_are_in_a_package_and_a_module_of_it_are_loaded(package, tmp_path):
    stages = [stage_of(package.other), stage_of(package.work)]

    assert errors_of_loading(tmp_path, stages) == []


def test_without_a_stage_around_them_the_functions_wait_for_each_other(package, tmp_path):
    assert errors_of_loading(tmp_path, [package.other, package.work]) == ["_DeadlockError"]

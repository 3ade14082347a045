"""The examples in docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import sage_connectors
import sage_flink
import sage_jobs

MODULES = sorted(
    found.name
    for package in (sage_flink, sage_connectors, sage_jobs)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name):
    failed, _ = doctest.testmod(importlib.import_module(name), verbose=False)

    assert failed == 0

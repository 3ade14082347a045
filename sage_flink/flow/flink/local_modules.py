"""Modules that only the submitting process has: their code travels with the job.

A function of an installed package is sent by its name, and the worker imports the package. A module
next to the author's script, or one that a notebook has on its path, is not there for a worker: the
job would start, fail to import it, and start again.
"""

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cloudpickle  # type: ignore[import-untyped]  # installed with apache-flink

#: Prints those of the names that the interpreter cannot find, in an empty environment.
MISSING = (
    "import json, sys; from importlib.util import find_spec; "
    "print(json.dumps([name for name in sys.argv[1:] if find_spec(name) is None]))"
)
TIMEOUT_S = 60


@contextmanager
def sent_by_value() -> Iterator[None]:
    """During the block, functions and classes of such modules are pickled with their code."""
    known = cloudpickle.list_registry_pickle_by_value()
    missing = missing_at_worker(set(local_modules()) - known)
    modules = [sys.modules[name] for name in missing]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def local_modules() -> list[str]:
    """Top-level modules of this process that are in no folder of installed packages, by name."""
    paths = sysconfig.get_paths()
    installed = [Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found = []
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or "." in name or name == "__main__" or not file.endswith(".py"):
            continue
        if not any(Path(file).is_relative_to(folder) for folder in installed):
            found.append(name)
    return found


def missing_at_worker(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that a worker, which is of the same environment, cannot import."""
    names = sorted(names)
    if not names:
        return []
    done = subprocess.run(
        [sys.executable, "-I", "-c", MISSING, *names],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    missing: list[str] = json.loads(done.stdout)
    return missing

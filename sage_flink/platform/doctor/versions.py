"""Versions: Python, Java, the installed environments against the pins, the programs of setup."""

import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sage_flink.platform.doctor.check import Check
from sage_flink.platform.stack.stack_directory import SETUP

JAVA_MIN = 17
JAVA_TIMEOUT_S = 4.0
ENVIRONMENTS = ("flink", "gateway")
#: What setup links into ``lib`` and ``venv`` of the stack directory, by the name of its part.
PROGRAMS = {
    "kafka": "lib/kafka",
    "influxd": "lib/influxd",
    "native operators": "lib/sage-native.jar",
    "milvus": "venv/milvus/server/milvus",
    "engines": "venv/engines/bin/python",
}
PACKAGES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What is installed. ``java``: its version, empty without one. ``missing``: parts of
    :data:`PROGRAMS`. ``unlike``: by environment, the packages that differ from their pins.
    """

    sage: str
    python: str
    java: str
    has_stack: bool
    missing: tuple[str, ...]
    environments: Mapping[str, int]
    unlike: Mapping[str, tuple[str, ...]]


def read_versions(home: Path, pins: Path) -> VersionFacts:
    """The facts of the installation in ``home``; ``pins`` is the file of pinned versions."""
    wanted = read_pins(pins.read_text(encoding="utf-8")) if pins.exists() else {}
    installed = {name: read_packages(home / "venv" / name) for name in ENVIRONMENTS}
    installed = {name: packages for name, packages in installed.items() if packages}
    return VersionFacts(
        sage=_own_version(),
        python=platform.python_version(),
        java=_java_version(),
        has_stack=bool(installed),
        missing=tuple(name for name, path in PROGRAMS.items() if not (home / path).exists()),
        environments={name: len(packages) for name, packages in installed.items()},
        unlike={name: tuple(unlike(packages, wanted)) for name, packages in installed.items()},
    )


def read_pins(text: str) -> dict[str, str]:
    """The pinned version of each package of a constraints file.

    >>> read_pins("# a comment\\nPyYAML==6.0.3\\nruamel.yaml==0.18  # why\\n")
    {'pyyaml': '6.0.3', 'ruamel-yaml': '0.18'}
    """
    pairs = re.findall(r"^([\w.-]+)==([^\s;#]+)", text, re.MULTILINE)
    return {_normal(name): pinned for name, pinned in pairs}


def read_packages(environment: Path) -> dict[str, str]:
    """The version of each package installed in a virtual environment; empty without one."""
    found = environment.glob("lib/python3*/site-packages/*.dist-info")
    pairs = (path.name.removesuffix(".dist-info").rpartition("-") for path in found)
    return {_normal(name): installed for name, _, installed in pairs}


def unlike(installed: Mapping[str, str], pins: Mapping[str, str]) -> Iterator[str]:
    """A phrase for each installed package that is not of its pinned version.

    >>> list(unlike({"a": "1", "b": "2", "own": "0"}, {"a": "1", "b": "3", "c": "4"}))
    ['b 2 instead of 3']
    """
    for name, found in sorted(installed.items()):
        if name in pins and pins[name] != found:
            yield f"{name} {found} instead of {pins[name]}"


def check_versions(facts: VersionFacts) -> Iterator[Check]:
    """The checks of the installation."""
    yield Check("versions", "sage", "ok", f"{facts.sage} on Python {facts.python}")
    yield _java(facts.java)
    if not facts.has_stack:
        yield Check(
            "versions", "local stack", "warning", "is not installed", f"{SETUP} in a checkout"
        )
        return
    for name in ENVIRONMENTS:
        yield _environment(name, facts.environments.get(name, 0), facts.unlike.get(name, ()))
    if facts.missing:
        found = f"missing: {', '.join(facts.missing)}"
        yield Check("versions", "programs", "fault", found, SETUP)
    else:
        yield Check("versions", "programs", "ok", ", ".join(PROGRAMS))


def _java(found: str) -> Check:
    major = int(re.match(r"\d*", found)[0] or 0)  # type: ignore[index]
    if major >= JAVA_MIN:
        return Check("versions", "java", "ok", found)
    step = f"install a JDK of version {JAVA_MIN} or newer and put its `java` on PATH"
    return Check("versions", "java", "fault", found or "no `java` on PATH answers", step)


def _environment(name: str, count: int, differing: tuple[str, ...]) -> Check:
    if not count:
        return Check("versions", f"venv/{name}", "fault", "is not installed", SETUP)
    if not differing:
        return Check("versions", f"venv/{name}", "ok", f"{count} packages, as pinned")
    more = len(differing) - PACKAGES_SHOWN
    listed = ", ".join(differing[:PACKAGES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return Check("versions", f"venv/{name}", "warning", listed, f"{SETUP}, then `sage up`")


def _java_version() -> str:
    try:
        done = subprocess.run(
            ("java", "-version"),
            capture_output=True,
            text=True,
            timeout=JAVA_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r'version "([^"]+)"', done.stderr + done.stdout)
    return found[1] if found else ""


def _own_version() -> str:
    try:
        return version("sage-flink")
    except PackageNotFoundError:
        return "unknown"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

"""Result file of one benchmark run: headline figures, rows, machine and versions."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import psutil

RESULTS = Path(__file__).resolve().parents[1] / "results"
PACKAGES = (
    "apache-flink",
    "pymilvus",
    "kafka-python",
    "aiokafka",
    "influxdb-client",
    "aiohttp",
)


class Headline(msgspec.Struct, frozen=True):
    """Headline figure of a benchmark: the median over the repeats, and their spread."""

    metric: str
    value: float
    spread: tuple[float, float]
    unit: str
    better: str
    floor: float
    moonshot: float

    @classmethod
    def of(
        cls,
        metric: str,
        values: Sequence[float],
        *,
        unit: str,
        floor: float,
        moonshot: float,
        better: str = "higher",
    ) -> "Headline":
        """The headline of ``values``, one per repeat; ``better`` is ``higher`` or ``lower``."""
        rounded = [round(value, 4) for value in values]
        spread = (min(rounded), max(rounded))
        return cls(metric, median(rounded), spread, unit, better, floor, moonshot)

    @classmethod
    def worst(
        cls, metric: str, values: Sequence[float], *, unit: str, floor: float, moonshot: float
    ) -> "Headline":
        """The headline of ``values`` where lower is better and the worst one counts."""
        rounded = [round(value, 4) for value in values]
        spread = (min(rounded), max(rounded))
        return cls(metric, max(rounded), spread, unit, "lower", floor, moonshot)


class Result(msgspec.Struct, frozen=True):
    """Result of one benchmark run, with every repeat of every side."""

    id: str
    commit: str
    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    seed: int
    repeats: int
    sides: dict[str, Any]
    headline: list[Headline]

    def save(self, folder: Path = RESULTS) -> Path:
        """Write ``<id>.json`` into ``folder`` and return its path."""
        path = folder / f"{self.id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
        return path


def result(
    benchmark: str, *, seed: int, repeats: int, sides: dict[str, Any], headline: list[Headline]
) -> Result:
    """The result, with commit, date, machine and versions filled in."""
    return Result(
        id=benchmark,
        commit=commit(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=_machine(),
        versions={"python": platform.python_version(), **_versions()},
        seed=seed,
        repeats=repeats,
        sides=sides,
        headline=headline,
    )


def commit(checkout: Path | None = None) -> str:
    """The short hash of the checked-out commit, of this checkout by default."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=checkout or Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    memory_gib = round(psutil.virtual_memory().total / 2**30)
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": memory_gib, "gpu": None}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found

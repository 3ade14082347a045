"""An engine as a value: how to start a server that speaks OpenAI's API, and what it can do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sage_gateway.pool_spec import Kind, ModelSpec


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a command line is made of. ``python`` is of the engine's own environment."""

    model: str
    spec: ModelSpec
    source: Path
    port: int
    python: Path


@dataclass(frozen=True, slots=True)
class Engine:
    """One kind of engine.

    ``argv`` gives the command line of a server on ``127.0.0.1:port`` that serves the model under
    the name ``Launch.model`` and answers ``health_path`` with 200 once it is loaded.
    ``environment`` names the virtual environment: ``$SAGE_CACHE/venv/<environment>-*``, or the
    interpreter in ``SAGE_<ENVIRONMENT>_PYTHON``; empty is the gateway's own interpreter.
    """

    name: str
    kinds: frozenset[Kind]
    argv: Callable[[Launch], list[str]]
    env: Mapping[str, str] = field(default_factory=dict)
    environment: str = "engines"
    health_path: str = "/health"
    metrics_path: str | None = None

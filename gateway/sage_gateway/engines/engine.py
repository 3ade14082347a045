"""The description of an engine: how to start its OpenAI-compatible server, and what it serves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sage_gateway.config.pool_spec import Kind, ModelSpec
from sage_gateway.engines.egress import Target


@dataclass(frozen=True, slots=True)
class Launch:
    """The input of an engine's command line.

    ``source`` exists; it is None for an engine without weights. ``python`` is the interpreter of
    the engine's ``environment``; an engine that is not a Python program ignores it. ``target``: the
    address of a remote engine.
    """

    model: str
    spec: ModelSpec
    source: Path | None
    port: int
    python: Path
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """One kind of engine; its name in ``pool.yaml`` is that of its file.

    ``argv`` gives the command line of a server on ``127.0.0.1:port`` that serves the model under
    the name ``Launch.model`` and answers ``health_path`` with 200 once it is loaded;
    ``spec.arguments`` are last. It is called at every start of a replica, and once before the
    first to find mistakes.
    ``weights``: the model must name a ``source``; without weights it must not.
    ``environment`` names the virtual environment of ``Launch.python``:
    ``$SAGE_CACHE/venv/<environment>`` or the newest ``<environment>-*``, unless
    ``SAGE_<ENVIRONMENT>_PYTHON`` names an interpreter. Empty is the gateway's own interpreter.
    ``setup_script``: the script to run if environment or weights are missing.
    ``probe``: whether it must also answer a request of one token to be ready. ``remote``: it is not
    started here, and checked at most every ``interval_s_min``.
    """

    kinds: frozenset[Kind]
    argv: Callable[[Launch], list[str]]
    weights: bool = True
    environment: str = ""
    setup_script: str = "infra/setup.sh"
    env: Mapping[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    probe: bool = True
    remote: bool = False
    interval_s_min: float = 0.0

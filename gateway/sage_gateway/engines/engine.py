"""An engine as a value: how to start a server that speaks OpenAI's API, and what it can do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sage_gateway.config.pool_spec import Kind, ModelSpec
from sage_gateway.engines.egress import Target


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a command line is made of.

    ``source`` is there, and None for an engine without weights. ``python`` is the interpreter of
    the engine's ``environment``; an engine that is no Python program leaves it alone. ``target`` is
    where a remote engine is.
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
    the name ``Launch.model`` and answers ``health_path`` with 200 once it is loaded; what
    ``spec.arguments`` holds comes last. It is called at every start of a replica, and once before
    the first to find mistakes.
    ``weights``: the model must name a ``source``; without weights it must not.
    ``environment`` names the virtual environment of ``Launch.python``:
    ``$SAGE_CACHE/venv/<environment>`` or the newest ``<environment>-*``, unless
    ``SAGE_<ENVIRONMENT>_PYTHON`` names an interpreter. Empty is the gateway's own interpreter.
    ``made_by`` is the script to run where environment or weights are not there.
    ``probe``: before it is ready it must answer a request of one token too. ``remote``: it runs
    elsewhere, nothing is started, and it is asked every ``interval_s_min`` at most.
    """

    kinds: frozenset[Kind]
    argv: Callable[[Launch], list[str]]
    weights: bool = True
    environment: str = ""
    made_by: str = "infra/setup.sh"
    env: Mapping[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    probe: bool = True
    remote: bool = False
    interval_s_min: float = 0.0

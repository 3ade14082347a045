"""A fake engine without a model, for tests and trials: the prompt is a script of its answer."""

from pathlib import Path

from sage_gateway.engines.engine import Engine, Launch

SCRIPT = Path(__file__).with_name("serve_fake.py")


def argv(launch: Launch) -> list[str]:
    """The server script's command line."""
    line = [str(launch.python), str(SCRIPT), "--port", str(launch.port), "--alias", launch.model]
    return [*line, *launch.spec.arguments]


ENGINE = Engine(kinds=frozenset({"chat", "embedding", "rerank"}), argv=argv, weights=False)

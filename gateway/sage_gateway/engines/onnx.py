"""onnxruntime: a folder with ``model.onnx`` and ``tokenizer.json``; embeddings on the CPU."""

from pathlib import Path

from sage_gateway.engines.engine import Engine, Launch

SCRIPT = Path(__file__).with_name("serve_onnx.py")


def argv(launch: Launch) -> list[str]:
    """The server script's command line; ``threads`` batches run at the same time."""
    spec = launch.spec
    line = [str(launch.python), str(SCRIPT), "--model", str(launch.source)]
    line += ["--alias", launch.model, "--port", str(launch.port)]
    line += ["--context-tokens", str(spec.context_tokens), "--threads", str(spec.threads)]
    return [*line, *spec.arguments]


ENGINE = Engine(kinds=frozenset({"embedding"}), argv=argv, environment="engines")

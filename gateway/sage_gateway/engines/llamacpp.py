"""llama.cpp through xllamacpp: GGUF weights, light, CPU or GPU; chat and embeddings."""

from pathlib import Path

from sage_gateway.engines.engine import Engine, Launch

SCRIPT = Path(__file__).with_name("serve_llamacpp.py")
SPARE_THREADS = 4


def argv(launch: Launch) -> list[str]:
    """The server script's command line.

    Every request occupies an HTTP thread until it is answered, ``/health`` too: with fewer threads
    than requests a busy server is not distinguishable from a hung one.
    """
    spec = launch.spec
    line = [str(launch.python), str(SCRIPT), "--model", str(launch.source)]
    line += ["--alias", launch.model, "--port", str(launch.port), "--slots", str(spec.slots)]
    line += ["--context-tokens", str(spec.context_tokens), "--threads", str(spec.threads)]
    line += ["--http-threads", str(spec.concurrency_max + SPARE_THREADS)]
    line += ["--embedding"] if spec.kind == "embedding" else []
    return [*line, *spec.arguments]


ENGINE = Engine(kinds=frozenset({"chat", "embedding"}), argv=argv, environment="engines")

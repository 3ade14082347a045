"""SGLang's own OpenAI server, for GPUs; ``source`` is a folder in Hugging Face's layout.

No script creates its environment: install ``sglang`` into a virtual environment, and
name its interpreter in ``SAGE_SGLANG_PYTHON``. It takes minutes to become healthy with a large
model: give it ``health.start_timeout_s``. ``threads`` is ignored.

Source: docs.sglang.io, Server Arguments.
"""

from sage_gateway.engines.engine import Engine, Launch


def argv(launch: Launch) -> list[str]:
    """``sglang.launch_server`` with the model's limits."""
    spec = launch.spec
    line = [str(launch.python), "-m", "sglang.launch_server"]
    line += ["--model-path", str(launch.source), "--served-model-name", launch.model]
    line += ["--host", "127.0.0.1", "--port", str(launch.port)]
    line += ["--context-length", str(spec.context_tokens)]
    line += ["--max-running-requests", str(spec.slots), "--enable-metrics"]
    line += ["--is-embedding"] if spec.kind == "embedding" else []
    return [*line, *spec.arguments]


ENGINE = Engine(
    kinds=frozenset({"chat", "embedding"}),
    argv=argv,
    environment="sglang",
    setup_script="",
    env={"HF_HUB_OFFLINE": "1"},
)

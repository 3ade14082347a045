"""vLLM's own OpenAI server; ``source`` is a folder in Hugging Face's layout.

On a CPU it takes about two minutes to become healthy: give the model ``health.start_timeout_s``
of 300, and pass ``--enforce-eager`` in ``arguments``.
"""

from sage_gateway.engines.engine import Engine, Launch


def argv(launch: Launch) -> list[str]:
    """``vllm.entrypoints.openai.api_server`` with the model's limits."""
    spec = launch.spec
    line = [str(launch.python), "-m", "vllm.entrypoints.openai.api_server"]
    line += ["--model", str(launch.source), "--served-model-name", launch.model]
    line += ["--host", "127.0.0.1", "--port", str(launch.port)]
    line += ["--max-model-len", str(spec.context_tokens), "--max-num-seqs", str(spec.slots)]
    embedding = ["--runner", "pooling", "--dtype", "float32"]
    line += embedding if spec.kind == "embedding" else ["--dtype", "bfloat16"]
    return [*line, *spec.arguments]


ENGINE = Engine(
    name="vllm",
    kinds=frozenset({"chat", "embedding"}),
    argv=argv,
    env={"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"},
    environment="vllm",
    metrics_path="/metrics",
)

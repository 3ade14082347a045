"""vLLM's own OpenAI server; ``source`` is a folder in Hugging Face's layout.

``infra/vllm.sh`` creates an environment for CPUs. There it is three processes that take two to four
minutes to become healthy, and 4 GB with the smallest model: give it ``health.start_timeout_s`` of
400, and ``--enforce-eager`` in ``arguments``. ``threads`` is ignored: vLLM uses all
cores but one.
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
    kinds=frozenset({"chat", "embedding"}),
    argv=argv,
    environment="vllm",
    setup_script="infra/vllm.sh",
    env={"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"},
)

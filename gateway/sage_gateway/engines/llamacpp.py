"""llama.cpp through xllamacpp: GGUF weights, light, CPU or GPU; chat and embeddings.

It looks at the connection only when it writes: a whole answer whose caller disconnects (measured:
a slot busy for more than 20 s, until the last token) is asked for as a stream and joined. The cost
is 5 us of the gateway an event; an engine of 1,000 tokens a second takes half a percent of a core.
"""

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


ENGINE = Engine(
    kinds=frozenset({"chat", "embedding"}),
    argv=argv,
    environment="engines",
    joined={"stream": True, "stream_options": {"include_usage": True}, "timings_per_token": True},
    choices_need_slots=True,
    calls_named_tools=False,  # takes only texts; an object is ignored
    logprobs_as_chat=True,
)

"""An engine elsewhere: any OpenAI-compatible server at the base URL that ``source`` names.

Its host must be in ``engine_hosts`` of ``pool.yaml`` (:mod:`egress`). ``key_env`` is
the environment variable with its key; the caller's own never goes there. ``remote_model`` is what
the model is called there. Nothing is started: "ready" means that ``/v1/models`` answers and that a
request of one token does. It is asked no more often than every ten seconds.
"""

from sage_gateway.engines.engine import Engine, Launch


def argv(_: Launch) -> list[str]:
    """No command line."""
    return []


ENGINE = Engine(
    kinds=frozenset({"chat", "embedding"}),
    argv=argv,
    weights=False,
    remote=True,
    interval_s_min=10.0,
    health_path="/v1/models",
)

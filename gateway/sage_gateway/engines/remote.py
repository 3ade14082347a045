"""A remote engine: any OpenAI-compatible server at the base URL in ``source``.

The base URL is the one that its clients use: ``https://HOST/v1``, or another path in its place.

Its host must be in ``engine_hosts`` of ``pool.yaml`` (:mod:`egress`). ``key_env`` is the
environment variable with its key; the caller's own key is never sent there. ``remote_model`` is the
name of the model there. No process is started: READY means that ``/v1/models``, if it is there, and
a request of one token are answered. It is checked at most every ten seconds.

A remote llama.cpp is recognized by the ``timings`` in its answers, from that of the probe on (of
the first whole one where the probe is refused with 429). Its whole answers are joined from streams,
as those of a llama.cpp that is started here: the usage of an answer with several choices would be
that of the first one, and a generation whose caller has disconnected would go on. The usage that
other engines report is charged as it is.
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

"""Engines: the model servers that a pool starts, or asks if they are remote.

One engine is one file ``NAME.py`` with an ``ENGINE``, and its name in ``NAMES`` below. ``engine``
is the interface. ``serve_*.py`` are our own servers, run by path in the engine's environment;
``process`` starts and ends an engine's process, ``tether.py`` ties it to the gateway. ``egress``
restricts the connections to remote engines.
"""

from importlib import import_module

from sage_gateway.engines.engine import Engine, Launch

__all__ = ["ENGINES", "KNOWN", "Engine", "Launch"]

NAMES = (
    "fake",
    "llamacpp",
    "mock",
    "onnx",
    "sglang",
    "vllm",
)

ENGINES: dict[str, Engine] = {name: import_module(f"{__name__}.{name}").ENGINE for name in NAMES}
#: With the engine that is not started here.
KNOWN: dict[str, Engine] = {**ENGINES, "remote": import_module(f"{__name__}.remote").ENGINE}

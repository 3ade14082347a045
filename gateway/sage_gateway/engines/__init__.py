"""The engines there are. One more: a file here with an ``ENGINE`` in it, and its name in a line."""

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
#: With the one that is not started here.
KNOWN: dict[str, Engine] = {**ENGINES, "remote": import_module(f"{__name__}.remote").ENGINE}

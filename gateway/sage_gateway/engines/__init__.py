"""The engines there are. One more: one file with an ``ENGINE``, and its name here."""

from sage_gateway.engines import fake, llamacpp, onnx, vllm
from sage_gateway.engines.engine import Engine, Launch

__all__ = ["ENGINES", "Engine", "Launch"]

ENGINES: dict[str, Engine] = {
    e.name: e for e in (llamacpp.ENGINE, onnx.ENGINE, vllm.ENGINE, fake.ENGINE)
}

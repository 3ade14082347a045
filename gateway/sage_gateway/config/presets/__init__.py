"""Shipped pools for common machines: ``NAME.yaml`` in this folder is the preset ``NAME``."""

from pathlib import Path

from sage_flink.common import ConfigError

__all__ = ["NAMES", "path", "text"]

_FOLDER = Path(__file__).parent
NAMES = ("cpu-small", "cpu-vllm", "gpu-mixed", "gpu-vllm")


def path(name: str) -> Path:
    """The file of the preset ``name``.

    Raises:
        ConfigError: there is no preset of that name.
    """
    if name not in NAMES:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(NAMES)}")
    return _FOLDER / f"{name}.yaml"


def text(name: str) -> str:
    """The text of that file."""
    return path(name).read_text()

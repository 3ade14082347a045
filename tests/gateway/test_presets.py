"""The shipped presets."""

from pathlib import Path

import pytest

from sage_flink.common import ConfigError
from sage_gateway.config import presets
from sage_gateway.config.pool_file import load
from sage_gateway.engines import ENGINES


def test_every_file_is_a_preset() -> None:
    files = Path(presets.__file__).parent.glob("*.yaml")

    assert sorted(file.stem for file in files) == list(presets.NAMES)


@pytest.mark.parametrize("name", presets.NAMES)
def test_a_preset_has_a_chat_model_and_one_for_collections(name: str) -> None:
    pool = load(presets.path(name), ENGINES)

    assert {model.kind for model in pool.models.values()} == {"chat", "embedding"}
    assert pool.models[pool.embedding_model].dim
    for model in pool.models.values():
        assert model.kind in ENGINES[model.engine].kinds


def test_an_unknown_preset_is_an_error_that_lists_the_presets() -> None:
    with pytest.raises(ConfigError, match="there are cpu-small, cpu-vllm, gpu-mixed, gpu-vllm"):
        presets.path("../pool")

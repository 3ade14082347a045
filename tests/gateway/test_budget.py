"""Models that do not fit are refused before their start, with the arithmetic."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from sage_flink.common import ConfigError
from sage_gateway.capacity import model_size
from sage_gateway.capacity.memory_budget import (
    Footprint,
    Machine,
    machine,
    oversubscription,
    problems,
)
from sage_gateway.config.pool_spec import BudgetSpec, ModelSpec, PoolSpec
from sage_gateway.controlplane.pool import Pool
from sage_gateway.controlplane.replica_factory import model_of
from sage_gateway.engines import ENGINES
from sage_gateway.errors import GatewayError
from sage_gateway.openai.error_table import status_of

HERE = Machine(cores=2, memory_mb=4096)
NONE = BudgetSpec()
CHAT, EMBED = Footprint("chat", 2, 2, 1000, 500), Footprint("embed", 1, 1, 90, 0)


def test_a_pool_that_fits_has_no_problems() -> None:
    assert list(problems([CHAT, EMBED], NONE, HERE)) == []
    assert oversubscription([EMBED], NONE, HERE) == ""


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            BudgetSpec(cpu_threads=4),
            "CPU: chat 2 x 2 + embed 1 x 1 = 5 threads, and budget.cpu_threads is 4",
        ),
        (
            BudgetSpec(memory_mb=3000),
            "memory: chat 2 x (1000 weights + 500 KV cache) + embed 1 x (90 weights + 0 KV cache) "
            "= 3090 MiB, and budget.memory_mb is 3000",
        ),
    ],
)
def test_a_budget_is_enforced_and_the_error_shows_the_sum(budget: BudgetSpec, message: str) -> None:
    (found,) = problems([CHAT, EMBED], budget, HERE)

    assert found.startswith(message)


def test_without_a_budget_memory_is_limited_by_the_machine_and_threads_are_a_warning() -> None:
    more = CHAT._replace(replicas=3)

    assert "and this machine has 4096" in next(problems([more], NONE, HERE))
    assert oversubscription([more], NONE, HERE) == (
        "CPU: chat 3 x 2 = 6 threads on 2 cores; at full load they share"
    )
    assert list(problems([more], BudgetSpec(memory_mb=5000), HERE)) == []


def test_a_model_with_zero_replicas_takes_no_resources() -> None:
    assert (
        list(problems([Footprint("big", 0, 64, 10**6, 10**6)], BudgetSpec(cpu_threads=1), HERE))
        == []
    )


def test_gpu_memory_is_counted_separately() -> None:
    mixed = [Footprint("chat", 1, 1, 0, 0, 60_000), Footprint("embed", 2, 1, 0, 0, 12_000)]
    card = HERE._replace(gpu_mb=81_000)

    assert list(problems(mixed[:1], NONE, card)) == []
    assert list(problems(mixed, NONE, card)) == [
        "GPU memory: chat 1 x 60000 + embed 2 x 12000 = 84000 MiB, and the GPUs here have 81000; "
        "take fewer replicas"
    ]
    assert list(problems(mixed, BudgetSpec(gpu_memory_mb=90_000), HERE)) == []


def test_this_machine_has_cores_and_memory() -> None:
    here = machine()

    assert here.cores >= 1
    assert here.memory_mb > 256


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(**pairs: tuple[int, bytes]) -> bytes:
    body = b"".join(text(k) + struct.pack("<I", kind) + v for k, (kind, v) in pairs.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + body


HEADER: dict[str, tuple[int, bytes]] = {
    "general.architecture": (8, text("llama")),
    "tokenizer.ggml.tokens": (9, struct.pack("<IQ", 8, 2) + text("a") + text("bc")),
    "tokenizer.ggml.scores": (9, struct.pack("<IQ3f", 6, 3, 0, 1, 2)),
    "llama.block_count": (4, struct.pack("<I", 30)),
    "llama.embedding_length": (4, struct.pack("<I", 576)),
    "llama.attention.head_count": (4, struct.pack("<I", 9)),
    "llama.attention.head_count_kv": (4, struct.pack("<I", 3)),
}


def test_the_kv_cache_of_a_token_is_read_from_a_gguf_header(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(gguf(**HEADER) + b"weights")

    assert model_size.kv_bytes(file) == 30 * 3 * 64 * 4
    assert model_size.size_bytes(file) == file.stat().st_size
    assert model_size.metadata(io.BytesIO(gguf(**HEADER)))["general.architecture"] == "llama"


def test_the_kv_cache_of_a_token_is_read_from_a_folders_config(tmp_path: Path) -> None:
    config = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_key_value_heads": 8}))

    assert model_size.kv_bytes(tmp_path) == 131_072


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"PK", gguf(**HEADER)[:60], b"GGUF" + b"\xff" * 40]
)
def test_an_unreadable_header_counts_as_zero(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "m"
    file.write_bytes(content)

    assert model_size.kv_bytes(file) == 0
    assert model_size.kv_bytes(tmp_path) == 0


def heavy(folder: Path, **more: Any) -> dict[str, Any]:
    """A model with 3 MiB of weights per replica."""
    with (folder / "m.onnx").open("wb") as file:
        file.truncate(3 << 20)
    return {"engine": "onnx", "kind": "embedding", "source": "m.onnx", "dim": 4, **more}


def pool(folder: Path, monkeypatch: pytest.MonkeyPatch, **budget: int) -> Pool:
    monkeypatch.setenv("SAGE_ENGINES_PYTHON", "/bin/true")
    spec = PoolSpec.model_validate({"models": {"m": heavy(folder, replicas=2)}, "budget": budget})
    return Pool(spec, ENGINES, models=folder, logs=folder)


def test_a_pool_that_does_not_fit_is_refused_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"pool: memory: m 2 x \(3 weights \+ 0 KV cache\) = 6"):
        pool(tmp_path, monkeypatch, memory_mb=5)


def test_more_replicas_than_fit_are_refused_but_fewer_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = pool(tmp_path, monkeypatch, memory_mb=10)
    fits.scale("m", 3)

    with pytest.raises(GatewayError, match="m 4 x") as caught:
        fits.scale("m", 4)
    assert (status_of(caught.value), caught.value.code) == (409, "does_not_fit")
    assert fits.models["m"].wanted == 3
    fits.scale("m", 0)


def test_a_model_that_does_not_fit_with_the_others_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = pool(tmp_path, monkeypatch, memory_mb=8)

    with pytest.raises(ConfigError, match=r"m 2 x .* \+ n 1 x .* = 9 MiB"):
        fits.put("n", ModelSpec.model_validate(heavy(tmp_path)))
    assert list(fits.models) == ["m"]


def test_threads_count_for_engines_with_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_ENGINES_PYTHON", "/bin/true")
    spec = ModelSpec.model_validate(heavy(tmp_path, threads=3))
    fake = ModelSpec(engine="fake", kind="chat", threads=3)

    assert model_of("m", spec, ENGINES["onnx"], tmp_path).footprint == Footprint("m", 1, 3, 3, 0)
    assert model_of("f", fake, ENGINES["fake"], tmp_path).footprint == Footprint("f", 1, 0, 0, 0)

"""``pool.yaml``: what is taken, and what a wrong one is told."""

from pathlib import Path

import pytest

from sage_flink.common import ConfigError
from sage_gateway.engines import ENGINES, Launch
from sage_gateway.pool_spec import SHIPPED, PoolSpec, chosen_file, load

GOOD = "models: {m: {engine: fake, kind: chat, source: x}}"


def test_the_shipped_pool_has_a_chat_and_an_embedding_model() -> None:
    pool = load(SHIPPED, ENGINES)

    assert {n: m.kind for n, m in pool.models.items()} == {"smollm2": "chat", "minilm": "embedding"}
    assert pool.models["minilm"].dim == 384
    assert pool.embedding_of("docs") == "minilm"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "models: {m: {engine: fake, kind: chat, source: x, slotss: 3}}",
            "models.m.slotss: unknown key",
        ),
        (
            "models: {m: {engine: nope, kind: chat, source: x}}",
            "models.m.engine: 'nope' is none of",
        ),
        ("models: {m: {engine: fake, kind: chat, source: x, slots: 0}}", "models.m.slots"),
        ("models: {m: {engine: fake, kind: poetry, source: x}}", "models.m.kind"),
        ("models: {}", "models"),
        ("[]", "models"),
        ("models: [", "not YAML"),
        (
            GOOD[:-1] + ", n: {engine: fake, kind: chat, source: x, aliases: [m]}}",
            "'m' names two models",
        ),
    ],
)
def test_a_wrong_pool_file_is_told_in_one_line_that_names_the_place(
    tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError) as caught:
        load(file, ENGINES)

    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_given_beats_the_one_at_home_which_beats_the_shipped_one(tmp_path: Path) -> None:
    given = tmp_path / "given.yaml"
    assert chosen_file(None, tmp_path) == SHIPPED

    (tmp_path / "pool.yaml").write_text(GOOD)
    assert chosen_file(None, tmp_path) == tmp_path / "pool.yaml"
    assert chosen_file(given, tmp_path) == given

    with pytest.raises(ConfigError, match="give --pool a file that exists"):
        load(given, ENGINES)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_every_engine_is_told_its_weights_its_name_and_its_port(engine: str) -> None:
    value = ENGINES[engine]
    kind = min(value.kinds)
    model = {"engine": engine, "kind": kind, "source": "/weights", "arguments": ["--more"]}
    spec = PoolSpec.model_validate({"models": {"m": model}}).models["m"]

    line = value.argv(Launch("m", spec, Path("/weights"), 1234, Path("/venv/bin/python")))

    assert line[0] == "/venv/bin/python"
    assert line[-1] == "--more"
    assert {"m", "1234"} <= set(line)
    assert engine == "fake" or "/weights" in line

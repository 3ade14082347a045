"""``pool.yaml``: its valid forms, and the errors of invalid ones."""

from pathlib import Path
from typing import Any, get_args

import pytest

import sage_gateway
from sage_flink.common import ConfigError
from sage_gateway.config.pool_file import SHIPPED, choose_file, load
from sage_gateway.config.pool_spec import Kind, PoolSpec, Routing, Scheduling
from sage_gateway.engines import ENGINES, Engine, Launch

GOOD = "models: {m: {engine: fake, kind: chat}}"


def one_of(names: object) -> str:
    """The names of a Literal as a message lists them."""
    *first, last = (repr(name) for name in get_args(names))
    return f"must be {', '.join(first)} or {last}"


def test_the_shipped_pool_has_a_chat_and_an_embedding_model() -> None:
    pool = load(SHIPPED, ENGINES)

    assert {n: m.kind for n, m in pool.models.items()} == {"smollm2": "chat", "minilm": "embedding"}
    assert pool.models["minilm"].dim == 384
    assert pool.embedding_of("docs") == "minilm"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "models: {m: {engine: fake, kind: chat, slotss: 3}}",
            "models.m.slotss: unknown key",
        ),
        (
            "models: {m: {engine: nope, kind: chat}}",
            "models.m.engine: 'nope' is not one of",
        ),
        (
            "models: {m: {engine: fake, kind: chat, slots: 0}}",
            "models.m.slots: must be at least 1, got 0",
        ),
        (
            "models: {m: {engine: fake, kind: poetry}}",
            f"models.m.kind: {one_of(Kind)}, got 'poetry'",
        ),
        (
            "models: {m: {engine: fake, kind: chat, routing: fastest}}",
            f"models.m.routing: {one_of(Routing)}, got 'fastest'",
        ),
        (
            "models: {m: {engine: fake, kind: chat, hedge_after_ms: 50}}",
            "models.m.hedge_after_ms: only embedding models are hedged; remove it",
        ),
        (
            "models: {m: {engine: fake, kind: embedding, hedge_after_ms: 0}}",
            "models.m.hedge_after_ms: must be more than 0, got 0",
        ),
        ("models: {}", "models"),
        ("", "models: is missing"),
        ("[]", "the file: must have keys and values"),
        ("models: {bad name: {engine: fake, kind: chat}}", "models.bad name: a name has letters"),
        ("models: {m: {engine: fake, kind: chat, aliases: other}}", "aliases: must be a list"),
        ("models: {m: {engine: fake, kind: chat, slots: 1.5}}", "must be a whole number, got 1.5"),
        (
            "models: {m: {engine: fake, kind: chat, policy: lifo}}",
            f"models.m.policy: {one_of(Scheduling)}, got 'lifo'",
        ),
        (
            "models: {m: {engine: fake, kind: chat, concurrency: many}}",
            "models.m.concurrency: must be a whole number, or auto, got 'many'",
        ),
        (
            "models: {m: {engine: fake, kind: chat, concurrency: 0}}",
            "models.m.concurrency: must be at least 1, got 0",
        ),
        (
            "models: {m: {engine: fake, kind: chat, queue_max: -1}}",
            "models.m.queue_max: must be at least 0, got -1",
        ),
        ("models: [", "not YAML"),
        (
            GOOD + "\ntenants: {a: {tokens_per_day: 0}}",
            "tenants.a.tokens_per_day: must be at least 1",
        ),
        (GOOD + "\ntenants: {a: {tokens: 5}}", "tenants.a.tokens: unknown key"),
        (GOOD + "\ntenants: {a b: {}}", "tenants.a b: a name has letters"),
        (
            GOOD[:-1] + ", n: {engine: fake, kind: chat, aliases: [m]}}",
            "'m' names two models",
        ),
    ],
)
def test_a_mistake_in_a_pool_file_is_reported_on_one_line_with_its_path(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError) as caught:
        load(file, ENGINES)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_concurrency_is_a_number_or_measured(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    auto = "{engine: fake, kind: chat, concurrency: auto}"
    file.write_text(f"models: {{a: {auto}, b: {{engine: fake, kind: chat}}}}")

    models = load(file, ENGINES).models

    assert models["a"].concurrency is None
    assert models["a"].concurrency_max == 256
    assert models["b"].concurrency == models["b"].concurrency_max == 128
    assert (models["b"].policy, models["b"].queue_max) == ("fifo", 1024)


def test_a_tenant_has_only_the_limits_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(GOOD + "\ntenants: {acme: {requests_per_minute: 600, tokens_per_month: 5}}")

    limits = load(file, ENGINES).tenants["acme"]

    assert limits.model_dump(exclude_none=True) == {
        "requests_per_minute": 600,
        "tokens_per_month": 5,
    }


def test_the_pool_option_precedes_the_file_in_the_home_and_the_shipped_one(tmp_path: Path) -> None:
    given = tmp_path / "given.yaml"
    assert choose_file(None, tmp_path) == SHIPPED

    (tmp_path / "pool.yaml").write_text(GOOD)
    assert choose_file(None, tmp_path) == tmp_path / "pool.yaml"
    assert choose_file(given, tmp_path) == given

    with pytest.raises(ConfigError, match="give --pool a file that exists"):
        load(given, ENGINES)


def test_every_mistake_is_reported_in_plain_words(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(
        "models: {a b: {engine: fake, kind: chat}, m: {kind: song, threads: many}}\nextra: 1"
    )

    with pytest.raises(ConfigError) as caught:
        load(file, ENGINES)

    assert str(caught.value).splitlines() == [
        f"{file}: 5 mistakes",
        "  models.a b: a name has letters, digits and . _ : / - only, 128 at most, and starts with "
        "a letter or digit, got 'a b'",
        "  models.m.engine: is missing; add it",
        f"  models.m.kind: {one_of(Kind)}, got 'song'",
        "  models.m.threads: must be a whole number, got 'many'",
        "  extra: unknown key; remove it or correct its spelling",
    ]


def test_every_contradiction_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(
        "models: {a: {engine: x, kind: chat}, b: {engine: fake, kind: chat, aliases: [a, b]}}"
    )

    with pytest.raises(ConfigError) as caught:
        load(file, ENGINES)

    assert str(caught.value).count("\n  ") == 3


def command_line(engine: Engine, name: str, kind: str) -> tuple[Launch, list[str]]:
    """A launch, and the command line of the engine for it."""
    model = {"engine": name, "kind": kind, "arguments": ["--more", "2"]}
    spec = PoolSpec.model_validate({"models": {"the-model": model}}).models["the-model"]
    source = Path("/weights") if engine.weights else None
    launch = Launch("the-model", spec, source, 1234, Path("/venv/bin/python"))
    return launch, engine.argv(launch)


def readme_engine() -> Engine:
    """The example engine in the README of the gateway."""
    readme = Path(sage_gateway.__file__).parents[1] / "README.md"
    found: dict[str, Any] = {}
    exec(readme.read_text().split("```python\n")[1].split("```")[0], found)
    engine: Engine = found["ENGINE"]
    return engine


@pytest.mark.parametrize(
    ("name", "engine"), [*sorted(ENGINES.items()), ("readme_engine", readme_engine())]
)
def test_a_command_line_has_the_models_name_port_weights_and_arguments(
    name: str, engine: Engine
) -> None:
    for kind in engine.kinds:
        launch, line = command_line(engine, name, kind)

        assert all(isinstance(part, str) for part in line)
        assert line[-2:] == ["--more", "2"]
        for argument in (launch.model, "1234", *(["/weights"] if engine.weights else [])):
            assert any(argument in part for part in line)
        assert engine.health_path.startswith("/")

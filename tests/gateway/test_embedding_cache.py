"""The embedding cache: which texts an engine is asked for, and what the client gets."""

from array import array
from base64 import b64decode

import pytest
from cached_engine import DAY, DIM, Cache, vector

from sage_gateway.errors import EngineFailed, InvalidRequest


@pytest.fixture
def cache() -> Cache:
    return Cache()


async def test_only_texts_without_a_known_vector_reach_the_engine(cache: Cache) -> None:
    first = await cache.ask(["a", "b", "c"])
    second = await cache.ask(["c", "new", "a", "new"])
    third = await cache.ask("new")

    assert first == ("miss", [vector(t) for t in "abc"], 3)
    assert second == ("partial", [vector(t) for t in ("c", "new", "a", "new")], 3)
    assert third == ("hit", [vector("new")], 0)
    assert cache.engine.texts == {"a": 1, "b": 1, "c": 1, "new": 1}
    assert [cache.count(name) for name in ("hit", "miss", "unkept")] == [4, 4, 0]


async def test_without_the_header_every_text_reaches_the_engine(cache: Cache) -> None:
    marks = [(await cache.ask(["a"], headers))[0] for headers in (DAY, {}, {}, DAY)]

    assert (marks, cache.engine.texts["a"]) == (["miss", "", "", "hit"], 3)


async def test_a_vector_comes_in_the_form_that_is_asked_for(cache: Cache) -> None:
    await cache.ask(["a"])
    _, [packed], _ = await cache.ask(["a"], encoding_format="base64")
    _, [numbers], _ = await cache.ask(["a"], encoding_format="float", user="someone")

    assert array("f", b64decode(packed)).tolist() == numbers == vector("a")
    assert cache.engine.texts["a"] == 1


@pytest.mark.parametrize("change", ["tenant", "weights", "dimensions", "unknown field", "age"])
async def test_a_vector_of_another_kind_is_not_given(cache: Cache, change: str) -> None:
    await cache.ask(["a"])
    tenant, more = "acme", {}
    match change:
        case "tenant":
            tenant = "other"
        case "weights":
            cache.weights = b"v2"
        case "dimensions":
            more = {"dimensions": DIM}
        case "unknown field":
            more = {"input_type": "query"}
        case "age":
            cache.now_s += 86_400.5

    mark, _, _ = await cache.ask(["a"], tenant=tenant, **more)

    assert (mark, cache.engine.texts["a"]) == ("miss", 2)


async def test_a_model_that_the_pool_does_not_know_is_not_cached(cache: Cache) -> None:
    cache.weights = None

    assert [(await cache.ask(["a"]))[0] for _ in range(2)] == ["", ""]


async def test_a_request_with_the_clients_own_key_is_not_split(cache: Cache) -> None:
    await cache.ask(["a"])
    own = {**DAY, b"idempotency-key": b"mine", b"x-request-id": b"1"}
    equal = {**DAY, b"idempotency-key": b"one", b"x-request-id": b"one"}

    marks = [(await cache.ask(["a", "b"], headers))[0] for headers in (own, equal)]

    assert (marks, cache.engine.texts["a"]) == (["", "partial"], 2)


async def test_a_vector_that_is_not_finite_is_given_once_and_never_stored(cache: Cache) -> None:
    for _ in range(2):
        mark, found, _ = await cache.ask(["bad", "good"])
        assert found[0] == [None] * DIM or mark == "partial"
        with pytest.raises(EngineFailed):  # nothing to put in its place
            await cache.ask(["good", "bad"])
        cache.now_s += 86_401

    assert cache.engine.texts["bad"] == 4
    assert cache.count("unkept") == 4


async def test_a_request_that_the_engine_refuses_is_refused(cache: Cache) -> None:
    await cache.ask(["a"])
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            await cache.ask(["a", "refused"])

    assert (await cache.ask(["a"]))[0] == "hit"

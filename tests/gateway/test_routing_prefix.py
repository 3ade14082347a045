"""Routing by the prefix of the prompt, with bounded load."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.openai.schema import BODY_BYTES_MAX
from sage_gateway.replicas.lifecycle import ReplicaState
from sage_gateway.requests.request import Request
from sage_gateway.routing import Candidate, Router, RoutingHints
from sage_gateway.routing.prefix import (
    BLOCK_BYTES,
    CUTS,
    LINKS_MAX,
    POLICY,
    SentPrefixes,
    hash_chain,
    learn,
    load_limit,
    read,
)

SLOTS = 4


def router() -> Router:
    return Router(ModelSpec(engine="fake", kind="chat", routing="prefix", slots=SLOTS))


def at_work(*loads: int) -> list[Candidate]:
    return [Candidate(i, ReplicaState.READY, load) for i, load in enumerate(loads)]


def hints(text: str) -> RoutingHints:
    return RoutingHints(chain=hash_chain(text.encode()))


def chat(*contents: str, **more: object) -> bytes:
    messages = [{"role": "user", "content": content} for content in contents]
    return orjson.dumps({"model": "m", "temperature": 0, "messages": messages, **more})


def tale(words: int, about: str = "whales") -> str:
    return " ".join(f"{about} {i}" for i in range(words))


@given(
    turns=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    loads=st.lists(st.integers(0, SLOTS - 1), min_size=2, max_size=6),
)
def test_a_conversation_stays_on_one_replica_while_that_has_a_slot_free(
    turns: list[int], loads: list[int]
) -> None:
    by_prefix = router()
    messages = [tale(60)]
    first = by_prefix.choose(at_work(*loads), read(Request(body=chat(*messages))))

    for words in turns:
        messages.append(tale(words, "answers"))
        now = by_prefix.choose(at_work(*reversed(loads)), read(Request(body=chat(*messages))))

        assert now == first


@given(
    loads=st.lists(st.integers(0, 60), min_size=2, max_size=8),
    beginnings=st.lists(st.sampled_from("abc"), min_size=1, max_size=60),
)
def test_a_prefix_stays_on_its_replica_up_to_the_load_limit_and_not_beyond(
    loads: list[int], beginnings: list[str]
) -> None:
    policy, seen = POLICY, SentPrefixes(SLOTS)
    holders: dict[str, set[int]] = {}
    for name in beginnings:
        candidates = at_work(*loads)
        most = load_limit(candidates, SLOTS)
        index = policy.choose(candidates, hints(name * 600), seen)
        seen = policy.learn(seen, hints(name * 600), index)
        light = {i for i in holders.get(name, set()) if loads[i] < most}

        assert loads[index] < most
        assert index in light if light else loads[index] == min(loads)
        loads[index] += 1
        holders.setdefault(name, set()).add(index)


def test_a_hot_prefix_spreads_only_when_its_holder_is_too_busy() -> None:
    by_prefix, loads = router(), [0, 0, 0]
    for _ in range(30):
        index = by_prefix.choose(at_work(*loads), hints(tale(200)))
        assert index is not None
        loads[index] += 1

    assert max(loads) <= 13  # 1.25 times the mean of ten
    assert min(loads) >= 6


def test_the_longest_match_wins_over_a_lower_load() -> None:
    by_prefix = router()
    short, long = tale(300), tale(300) + tale(300, "fish")

    turns = [
        by_prefix.choose(candidates, hints(text))
        for candidates, text in [
            (at_work(0, 1), short),
            (at_work(40, 0), long),  # the replica with its first half is above the load limit
            (at_work(0, 3), long + "?"),
        ]
    ]

    assert turns == [0, 1, 1]


def test_a_common_prefix_that_is_a_small_part_of_the_prompt_does_not_count() -> None:
    by_prefix, loads = router(), [0, 0]
    for about in ("whales", "fish", "birds", "trees"):
        index = by_prefix.choose(at_work(*loads), hints("s" * 300 + tale(200, about)))
        assert index is not None
        loads[index] += 1

    assert loads == [2, 2]


def test_a_prompt_shorter_than_a_block_is_sent_to_the_least_loaded() -> None:
    assert read(Request(body=chat("hello"))) == RoutingHints()
    assert router().choose(at_work(1, 0), RoutingHints()) == 1


def test_the_whole_prompt_counts_and_its_end_changes_only_the_last_link() -> None:
    long = tale(40_000)

    chain = hash_chain(long.encode())
    other = hash_chain((long[: CUTS[len(chain) - 1] - 1] + "#").encode())

    assert chain[:-1] == other[:-1]
    assert chain[-1] != other[-1]
    assert CUTS[len(chain) - 1] > len(long) * 7 / 8


def test_the_first_byte_changes_every_link() -> None:
    chain, other = hash_chain(b"a" + b"x" * 5000), hash_chain(b"b" + b"x" * 5000)

    assert not set(chain) & set(other)


def test_the_largest_body_has_less_than_eighty_hashes() -> None:
    assert len(CUTS) < 80
    assert CUTS[-1] >= BODY_BYTES_MAX


def test_only_the_rendered_parts_of_a_body_count() -> None:
    tools = [{"type": "function", "function": {"name": "f" * 300}}]
    plain, cooler = chat(tale(200)), chat(tale(200), temperature=1, seed=3)
    with_tools = chat(tale(200), tools=tools)
    completion = orjson.dumps({"model": "m", "prompt": tale(200)})
    embeddings = orjson.dumps({"model": "m", "input": [tale(200)]})

    assert read(Request(body=plain)) == read(Request(body=cooler))
    assert not set(read(Request(body=plain)).chain) & set(read(Request(body=with_tools)).chain)
    assert read(Request(body=completion)).chain
    assert read(Request(body=embeddings)).chain


def test_the_prefix_state_is_bounded_and_short_prefixes_are_evicted_last() -> None:
    seen = SentPrefixes(SLOTS)
    own = hints("a" * BLOCK_BYTES * 3)
    learn(seen, own, 1)
    for i in range(LINKS_MAX - 1):
        learn(seen, RoutingHints(chain=(b"%d" % i,)), 0)

    assert len(seen.links) == LINKS_MAX
    assert own.chain[0] in seen.links
    assert own.chain[2] not in seen.links


def test_new_prefixes_of_a_quiet_model_rotate_and_known_ones_stay() -> None:
    by_prefix = router()
    idle = at_work(0, 0, 0)

    first = [by_prefix.choose(idle, hints(tale(200, about))) for about in ("a", "b", "c", "d")]
    again = [by_prefix.choose(idle, hints(tale(200, about))) for about in ("d", "c", "b", "a")]

    assert first == [0, 1, 2, 0]
    assert again == first[::-1]

"""Records that are near by a vector: what an author writes, and what is refused."""

import asyncio
import math
from typing import Any

import pytest

import sage_flink as sage
from sage_flink.common import PipelineError, Record, Rejected
from sage_flink.flow import (
    Count,
    Graph,
    Nearest,
    Similar,
    Stream,
    Tumbling,
    check,
    explain,
    from_yaml,
    to_yaml,
)
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.stateful.join_state import JoinState
from sage_flink.flow.stateful.joins import Join
from sage_flink.flow.vectors import similarity, unit_vector

DAY_MS = 1_700_000_000_000


def at(degrees: float, ms: int = 0, id_: str = "") -> Record:
    turn = math.radians(degrees)
    value = {"user": "a", "vector": [math.cos(turn), math.sin(turn)]}
    return Record(id_ or f"at/{degrees}", value, DAY_MS + ms)


def stream(name: str, *records: Record) -> Stream:
    timed = sage.flow.read(name, ListSource(records)).event_time(f"{name}-time", out_of_order_s=9)
    return timed.key_by(f"{name}-key", "user")


def join(left: list[Record], right: list[Record], **options: Any) -> Graph:
    similar = Similar(math.cos(math.radians(10)), dim=2)
    made = stream("l", *left).join(
        "near", stream("r", *right), within_s=(1, 1), similar=similar, **options
    )
    return sage.flow.pipeline(made.write("out", ListSink()))


def test_records_of_a_key_and_interval_meet_where_their_vectors_are_near() -> None:
    left = [at(0), at(90), at(180, 5_000)]
    right = [at(10), at(11), at(81), at(180, 500)]

    outcome = asyncio.run(sage.flow.run(join(left, right, how="full")))

    assert sorted(r.id for r in outcome.written["out"]) == [
        "near/at/0~at/10",
        "near/at/180~",
        "near/at/90~at/81",
        "near/~at/11",
        "near/~at/180",
    ]
    assert outcome.failed == []


def test_a_record_without_a_vector_of_that_length_is_a_dead_letter() -> None:
    wrong = [
        Record("none", {"user": "a"}, DAY_MS),
        Record("three", {"user": "a", "vector": [1.0, 0, 0]}, DAY_MS),
        Record("zero", {"user": "a", "vector": bytes(8)}, DAY_MS),
    ]

    outcome = asyncio.run(sage.flow.run(join([at(0), *wrong], [at(0, 1)])))

    assert [(f.id, f.step, f.reason) for f in outcome.failed] == [
        (
            "none",
            "near",
            "its field 'vector' must be a vector: float32 bytes or a list of numbers",
        ),
        ("three", "near", "its field 'vector' must be a vector of 2 numbers, got 3"),
        (
            "zero",
            "near",
            "its field 'vector' must be a vector with a direction: finite numbers, not all of "
            "them 0",
        ),
    ]
    assert len(outcome.written["out"]) == 1


def test_without_the_condition_all_records_of_the_interval_meet() -> None:
    left, right = [at(n * 30, id_=f"l{n}") for n in range(6)], [at(0, id_="r")]
    counts = []
    for similar in (Similar(0.9, 2), Similar(-1, 2), None):
        state = JoinState(Join("near", "l", "r", (1, 1), similar=similar))
        for record in left:
            state.add("left", record.replace(key=b"a"))
        counts.append(len(state.add("right", right[0].replace(key=b"a")) or ()))

    assert counts == [1, 6, 6]


@pytest.mark.parametrize(
    ("build", "flaw"),
    [
        (lambda: Similar(1.1, 2), "similar: threshold must be a cosine similarity from -1 to 1"),
        (lambda: Similar("0.9", 2), "similar: threshold must be a cosine similarity from -1 to"),
        (lambda: Similar(0.9, 0), "similar: dim must be at least 1, got 0"),
        (lambda: Similar(0.9, 2, ""), "similar: field must be the path of a field"),
        (
            lambda: Join("near", "l", "r", (0, 1), similar=0.9),  # type: ignore[arg-type]
            "step 'near': similar must be Similar(threshold, dim), or None, got 0.9",
        ),
    ],
)
def test_wrong_settings_are_refused_when_they_are_made(build: Any, flaw: str) -> None:
    with pytest.raises(PipelineError) as refused:
        build()

    assert str(refused.value).startswith(flaw)


def test_yaml_and_explain_have_the_condition() -> None:
    words: dict[str, Any] = {"list_source": ListSource, "list_sink": ListSink}
    made = check(join([], []), "local")

    text = to_yaml(made, words)

    assert "similar:\n    threshold: 0.98" in text
    assert from_yaml(text, words) == made
    assert "1 s after it; Similar(threshold=0.98" in explain(made)
    assert explain(made).count("dim=2") == 1


def test_a_vector_has_one_length_in_every_form() -> None:
    packed = unit_vector(b"\x00\x00\x40\x40\x00\x00\x80\x40")

    assert packed == unit_vector([3, 4]) == unit_vector([3.0, 4.0], 2) == (0.6, 0.8)
    assert similarity(packed, packed) == pytest.approx(1)
    for wrong in (None, "text", b"", b"123", [], [1, None], [True], {"a": 1}, [[1.0]]):
        with pytest.raises(Rejected, match="must be a vector: float32 bytes or a list"):
            unit_vector(wrong)


def test_a_window_has_the_nearest_records_and_leaves_out_those_without_a_vector() -> None:
    records = [at(5, 1), at(0, 2), at(90, 3), Record("none", {"user": "a"}, DAY_MS + 4)]
    windows = stream("in", *records).window(
        "top", Tumbling(1), {"near": Nearest("vector", (2.0, 0.0), k=2), "n": Count()}
    )

    outcome = asyncio.run(
        sage.flow.run(sage.flow.pipeline(windows.write("out", ListSink()))),
    )

    (result,) = outcome.written["out"]
    assert result.value["n"] == 4
    assert result.value["near"] == [
        {"value": records[1].value, "similarity": 1.0},
        {"value": records[0].value, "similarity": 0.996195},
    ]


@pytest.mark.parametrize(
    ("build", "flaw"),
    [
        (lambda: Nearest("", (1.0,)), "Nearest: field must be the path of a field"),
        (lambda: Nearest("v", (1.0,), k=0), "Nearest: k must be at least 1, got 0"),
        (lambda: Nearest("v", [1.0]), "Nearest: query must be a tuple of numbers"),  # type: ignore[arg-type]
        (lambda: Nearest("v", ()), "Nearest: query must be a vector: float32 bytes or a list"),
        (lambda: Nearest("v", (0.0, 0.0)), "Nearest: query must be a vector with a direction"),
        (lambda: Nearest("v", ("a",)), "Nearest: query must be a vector"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_query_is_refused_when_it_is_made(build: Any, flaw: str) -> None:
    with pytest.raises(PipelineError) as refused:
        build()

    assert str(refused.value).startswith(flaw)


def test_yaml_and_explain_have_the_query() -> None:
    words: dict[str, Any] = {"list_source": ListSource, "list_sink": ListSink}
    near = {"near": Nearest("vector", (2.0, 0.5), k=2, value="id")}
    made = stream("in").window("top", Tumbling(1), near).write("out", ListSink())

    assert from_yaml(to_yaml(made, words), words) == made
    assert "near=Nearest(field='vector', query=(2.0, 0.5), k=2, value='id')" in explain(made)

"""Ids and request ids depend on the record only, not on the time or place of processing."""

import pickle
import random
from collections.abc import Iterable
from dataclasses import dataclass

from hypothesis import assume, given
from hypothesis import strategies as st

import sage_flink as sage
from sage_flink.common import Record, derived_id
from sage_flink.flow import Call, FlatMap
from sage_flink.flow.call_requests import call_headers, request_id
from sage_flink.flow.steps import flat_map

#: A step's name is printable, by the graph's own check.
STEPS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20)
JOBS = STEPS.filter(lambda name: "/" not in name)
#: Any text, zero bytes too: a user's own key may be an id.
IDS = st.text(min_size=1, max_size=30)


@dataclass(frozen=True)
class Words:
    """A child for each word."""

    def __call__(self, record: Record) -> Iterable[str]:
        return str(record.value).split()


SPLIT, AGAIN = FlatMap("split", "in", Words()), FlatMap("again", "split", Words())
ASK = Call("ask", "again", sage.chat(model="m"), capacity=1, timeout_s=1)
RECORDS = st.lists(
    st.builds(Record, id=IDS, value=st.text("ab ", max_size=12)),
    max_size=8,
    unique_by=lambda record: record.id,
)


def ids_of(records: Iterable[Record], job: str = "job") -> list[tuple[str, str]]:
    """(id, request id) of each record that two steps derive from ``records``."""
    children = [child for record in records for child in flat_map(SPLIT, record)]
    grand = [child for record in children for child in flat_map(AGAIN, record)]
    return [(record.id, request_id(job, ASK, record)) for record in grand]


@given(RECORDS, st.randoms(use_true_random=False))
def test_a_replay_in_another_order_gives_the_same_ids(
    records: list[Record], chance: random.Random
) -> None:
    replayed = chance.sample(records, len(records))

    assert sorted(ids_of(replayed)) == sorted(ids_of(records))


@given(RECORDS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_any_parallelism_gives_the_same_ids(
    records: list[Record], parallelism: int, chance: random.Random
) -> None:
    subtasks: list[list[Record]] = [[] for _ in range(parallelism)]
    for record in records:
        chance.choice(subtasks).append(record)

    made = [pair for subtask in subtasks for pair in ids_of(subtask)]

    assert sorted(made) == sorted(ids_of(records))


@given(RECORDS)
def test_a_resubmitted_graph_gives_the_same_ids(records: list[Record]) -> None:
    split, again, ask = pickle.loads(pickle.dumps((SPLIT, AGAIN, ASK)))

    children = [child for record in records for child in flat_map(split, record)]
    grand = [child for record in children for child in flat_map(again, record)]

    assert [(r.id, request_id("job", ask, r)) for r in grand] == ids_of(records)


@given(RECORDS)
def test_no_two_records_share_an_id_or_a_request_id(records: list[Record]) -> None:
    made = ids_of(records)

    assert len({id_ for id_, _ in made}) == len({call_id for _, call_id in made}) == len(made)


@given(st.tuples(IDS, STEPS, st.integers(0, 10**6)), st.tuples(IDS, STEPS, st.integers(0, 10**6)))
def test_another_parent_step_or_ordinal_is_another_id(
    one: tuple[str, str, int], other: tuple[str, str, int]
) -> None:
    assume(one != other)

    assert derived_id(*one) != derived_id(*other)


@given(st.tuples(JOBS, STEPS, IDS), st.tuples(JOBS, STEPS, IDS))
def test_another_job_step_or_record_is_another_request(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assume(one != other and "dead-letters" not in (one[1], other[1]))

    ids = {
        request_id(job, Call(step, "in", ASK.spec, capacity=1, timeout_s=1), Record(id_, None))
        for job, step, id_ in (one, other)
    }

    assert len(ids) == 2


@given(IDS, st.dictionaries(st.sampled_from(["sage-tenant", "traceparent"]), st.binary()))
def test_a_request_id_does_not_depend_on_value_or_headers(
    id_: str, headers: dict[str, bytes]
) -> None:
    plain, full = Record(id_, None), Record(id_, {"x": 1}, 7, b"k", headers, "origin")

    assert call_headers("job", ASK, plain)["x-request-id"] == request_id("job", ASK, full)


def test_ids_are_the_same_in_every_process_and_release() -> None:
    assert derived_id("docs/0/7", "split", 0) == "3230f45d6b84e96b89e2963ff6e585c4"
    assert derived_id("docs/0/7", "rag/embed", 0) == "ebaa2885bf315ccdbf9b59aa16061350"

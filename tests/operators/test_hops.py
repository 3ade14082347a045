"""A record counts its passes through a loop, and is refused after so many."""

import pytest

from sage_flink.common import PipelineError, Record, Rejected
from sage_flink.operators import HopLimit


def passes(record: Record, times: int, limit: HopLimit) -> list[Record]:
    """The record as it is after each pass; the topic gives it its own id again each time."""
    seen = []
    for _ in range(times):
        (after,) = limit(record)
        seen.append(after)
        record = record.replace(headers=after.headers)
    return seen


def test_a_record_is_refused_after_its_last_pass():
    record = Record("task/1", {"n": 1}, headers={"other": b"kept"})

    seen = passes(record, 3, HopLimit(3))

    assert [one.headers["sage-hops"] for one in seen] == [b"1", b"2", b"3"]
    assert all(one.headers["other"] == b"kept" and one.value == {"n": 1} for one in seen)
    with pytest.raises(Rejected, match="has passed 3 times, at most 3 are allowed"):
        HopLimit(3)(seen[-1])


def test_each_pass_has_an_id_of_its_own_that_a_replay_repeats():
    record = Record("task/1", {"n": 1})

    ids = [one.id for one in passes(record, 4, HopLimit(9))]

    assert ids[0] == "task/1"
    assert len(set(ids)) == 4
    assert ids == [one.id for one in passes(record, 4, HopLimit(9))]


def test_a_delete_is_counted_so_that_it_cannot_circulate_for_ever():
    delete = Record("task/1", None).delete_of("task/1", id="task/1")

    (after,) = HopLimit(1)(delete)

    assert after.kind == "delete"
    with pytest.raises(Rejected):
        HopLimit(1)(after)


@pytest.mark.parametrize("header", [b"", b"-1", b"two", b"1.0", "٣".encode(), b"9" * 10])
def test_a_header_that_is_no_count_is_refused(header):
    with pytest.raises(Rejected, match="the header sage-hops must be a count"):
        HopLimit(3)(Record("task/1", {}, headers={"sage-hops": header}))


@pytest.mark.parametrize("hops_max", [0, -1, 1.5, "3", None, True])
def test_the_limit_is_a_whole_number(hops_max):
    with pytest.raises(PipelineError, match="hop limit: hops_max must be"):
        HopLimit(hops_max)

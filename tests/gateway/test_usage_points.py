"""Usage points: sums of a day, which may be written any number of times."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sage_flink.tsdb import Point, bucket
from sage_flink.tsdb.time_series_store import flaw
from sage_gateway.tenants.store_protocol import Charge, UsageKey
from sage_gateway.tenants.usage_points import usage_points

NOW = datetime(2026, 11, 24, 14, 3, 27, tzinfo=UTC)


def charge(day: int = 20261124, requests: int = 3, job: str = "ingest") -> Charge:
    return Charge(UsageKey(day, "acme", "key-1", "talk", job), requests, 30, 12)


def points(*charges: Charge, now: datetime = NOW) -> list[Point]:
    return usage_points(charges, now.timestamp())


def at(when: datetime) -> int:
    return int(when.timestamp()) * 1_000_000_000


def test_a_point_is_the_sum_of_its_day_at_the_start_of_a_minute() -> None:
    [found] = points(charge())

    assert found.measurement == "pool_usage"
    assert found.tags == {"tenant": "acme", "key": "key-1", "model": "talk", "job": "ingest"}
    assert found.fields == {"requests": 3, "prompt_tokens": 30, "completion_tokens": 12}
    assert found.timestamp_ns == at(NOW.replace(second=0))


def test_a_past_day_has_its_sum_at_its_last_minute() -> None:
    [found] = points(charge(20261123))

    assert found.timestamp_ns == at(datetime(2026, 11, 23, 23, 59, tzinfo=UTC))


def test_usage_without_a_job_has_a_point_too() -> None:
    [found] = points(charge(job=""))

    assert flaw(found) == ""


@given(st.lists(st.integers(0, 90), min_size=1, max_size=20))
def test_writing_again_within_a_minute_adds_no_point(seconds: list[int]) -> None:
    name = uuid.uuid4().hex
    store = bucket(name, store="memory").open()
    times = [NOW + timedelta(seconds=s) for s in seconds]
    for count, when in enumerate(sorted(times)):
        store.append(points(charge(requests=count), now=when))
    found = store.query("pool_usage")

    assert len(found) == len({when.replace(second=0) for when in times})
    assert found[-1].fields["requests"] == len(times) - 1


def test_a_gateway_reports_all_usage_before_it_ends(start: Any, fake: Any) -> None:
    where = bucket(uuid.uuid4().hex, store="memory")
    job = {"x-sage-job": "ingest"}
    body = {"model": "talk", "messages": [{"role": "user", "content": "echo hi"}]}
    with start({"talk": fake()}, bucket=where) as gateway:
        for _ in range(3):
            gateway.client.post("/v1/chat/completions", json=body, headers=job).raise_for_status()

    [found] = where.open().query("pool_usage", tags={"job": "ingest", "model": "talk"})
    assert found.fields == {"requests": 3, "prompt_tokens": 9, "completion_tokens": 6}

"""The headers of a call: request id, tenant, job, priority and key group."""

from hypothesis import given
from hypothesis import strategies as st

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.flow import Admission, Call
from sage_flink.flow.call_requests import call_headers, request_id

NODE = Call("ask", "in", sage.chat(model="m"), capacity=1, timeout_s=1, admission=Admission("acme"))


def test_a_call_carries_its_request_id_its_tenant_its_job_and_its_priority():
    record = Record("r", {})

    headers = call_headers("job", NODE, record)

    id_ = request_id("job", NODE, record)
    assert headers == {
        "x-request-id": id_,
        "idempotency-key": id_,
        "x-sage-tenant": "acme",
        "x-sage-job": "job",
        "x-sage-priority": "normal",
        "traceparent": f"00-{id_}-{id_[:16]}-00",
    }


def test_headers_of_the_record_override_those_of_the_step():
    own = {
        "sage-tenant": b"zeta",
        "sage-priority": b"background",
        "sage-deadline-ms": b"1700000000000",
        "traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }

    headers = call_headers("job", NODE, Record("r", {}, headers=own))

    assert headers["x-sage-tenant"] == "zeta"
    assert headers["x-sage-priority"] == "background"
    assert headers["x-sage-deadline-ms"] == "1700000000000"
    assert headers["traceparent"].endswith("-01")


def test_the_soft_deadline_is_the_event_time_plus_the_freshness_that_is_wanted():
    node = Call(
        *("ask", "in", sage.chat(model="m")),
        capacity=1,
        timeout_s=1,
        admission=Admission(freshness_s=1.5),
    )

    shown = [
        call_headers("job", node, Record("r", {}, timestamp_ms)).get("x-sage-soft-deadline-ms")
        for timestamp_ms in (1_700_000_000_000, 0, -5_000, 2**53)
    ]

    assert shown == ["1700000001500", None, "0", "999999999999999"]
    assert "x-sage-soft-deadline-ms" not in call_headers("job", NODE, Record("r", {}, 5))


def test_records_with_a_session_or_a_key_carry_it_for_routing():
    named = Record("r", {}, key=b"user 7", headers={"sage-session": b"s1"})

    headers = [call_headers("job", NODE, named.replace(id=id_)) for id_ in ("r", "s")]

    assert [h["x-session-id"] for h in headers] == ["s1", "s1"]
    first, second = (int(h["x-key-group"]) for h in headers)
    assert first == second < 128


def test_keys_spread_over_the_key_groups():
    keys = [f"user {n}".encode() for n in range(2000)]

    groups = {call_headers("job", NODE, Record("r", {}, key=key))["x-key-group"] for key in keys}

    assert len(groups) == 128


OWN = ["sage-tenant", "sage-priority", "sage-deadline-ms", "sage-session", "traceparent"]


@given(
    st.dictionaries(
        st.sampled_from(OWN),
        st.binary(max_size=300),
    )
)
def test_no_record_can_break_the_request_that_carries_it(own):
    headers = call_headers("job", NODE, Record("r", {}, headers=own))

    assert all(value.isprintable() and value.isascii() and value for value in headers.values())
    assert headers["x-sage-priority"] in ("interactive", "high", "normal", "low", "background")
    assert headers.get("x-sage-deadline-ms", "0").isdigit()

"""Which requests have a span; for the others, none is made and thrown away."""

import secrets

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from typing_extensions import override

from sage_gateway.observability.tracing import Tracing
from sage_gateway.requests.request import Request

PARENT = "00f067aa0ba902b7"


class CountedShare(TraceIdRatioBased):
    """Counts the spans that it decided about."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.asked = 0

    @override
    def should_sample(self, *args: object, **named: object):  # type: ignore[no-untyped-def]
        self.asked += 1
        return super().should_sample(*args, **named)  # type: ignore[arg-type]


def tracing(share: TraceIdRatioBased) -> Tracing:
    sampler = ParentBased(share, remote_parent_not_sampled=share)
    return Tracing(TracerProvider(sampler=sampler, shutdown_on_exit=False), share)


def request(traceparent: str | None = None) -> Request:
    headers = {} if traceparent is None else {b"traceparent": traceparent.encode()}
    return Request("/v1/chat/completions", b"", headers)


def traceparents(flags: str, count: int) -> list[str]:
    return [f"00-{secrets.token_hex(16)}-{PARENT}-{flags}" for _ in range(count)]


def test_without_a_share_only_sampled_requests_make_a_span() -> None:
    share = CountedShare(0)
    traced = tracing(share)

    unsampled = [traced.begin(request(at)) for at in (None, "", "odd", *traceparents("00", 20))]
    sampled = [traced.begin(request(at)) for at in traceparents("01", 20)]

    assert not any(unsampled)
    assert all(sampled)
    assert share.asked == 0


def test_a_share_is_decided_by_trace_id_before_a_span_is_made() -> None:
    share = CountedShare(0.5)
    traced = tracing(share)
    names = traceparents("00", 400)

    found = [traced.begin(request(name)) is not None for name in names]

    chosen = [int(name[3:35], 16) & share.TRACE_ID_LIMIT < share.bound for name in names]
    assert found == chosen
    assert share.asked == sum(chosen)
    assert 100 < sum(chosen) < 300


def test_requests_without_a_trace_are_sampled_by_share() -> None:
    traced = tracing(CountedShare(0.5))

    found = [traced.begin(request()) is not None for _ in range(400)]

    assert 100 < sum(found) < 300


@pytest.mark.parametrize("flags", ["01", "03", "ff", "00", "02", "fe"])
def test_a_span_continues_its_trace(flags: str) -> None:
    [at] = traceparents(flags, 1)

    span = tracing(CountedShare(1)).begin(request(at))

    assert span is not None
    assert span.traceparent[3:35] == at[3:35]
    assert span.traceparent[36:52] != PARENT
    assert span.traceparent.endswith("-01")

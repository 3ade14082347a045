"""OpenTelemetry traces: a span for each sampled request, the parent of the engine's own span.

Off, and its packages not loaded, until ``OTEL_EXPORTER_OTLP_ENDPOINT`` names a collector; the other
variables of OpenTelemetry apply as well. A request whose ``traceparent`` is sampled always has a
span. Of the others, clients without a ``traceparent`` and records of a stream (whose trace id is
derived from their request id), the share ``OTEL_TRACES_SAMPLER_ARG`` has one, 0 by default. The
choice is by trace id, so that every gateway and every attempt agree.

Source: W3C Trace Context, section 3.2; OpenTelemetry's semantic conventions for generative AI.
"""

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sage_flink.common import ConfigError
from sage_flink.common.validation import require
from sage_gateway.requests.request import Request

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
    from opentelemetry.trace import Span as OtelSpan

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CHARS_MAX = 200
#: In ``traceparent``, as in ``00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01``.
TRACE_ID = slice(3, 35)
FLAGS_DIGIT = 54
SAMPLED_DIGITS = frozenset(b"13579bdf")


class Span:
    """The span of one sampled request; its engine gets ``traceparent``."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: "OtelSpan") -> None:
        self._span = span
        at = span.get_span_context()
        self.traceparent = f"00-{at.trace_id:032x}-{at.span_id:016x}-01"

    def dispatch(self) -> None:
        """A replica has room for the request."""
        self._span.add_event("dispatched")

    def first_bytes(self) -> None:
        """The first bytes of a stream are there."""
        self._span.add_event("first bytes")

    def end(self, status: int, model: str, tokens: Mapping[str, int]) -> None:
        """The request is over; ``tokens`` by direction, ``in`` and ``out``."""
        span = self._span
        span.set_attribute("gen_ai.request.model", model)
        span.set_attribute("http.response.status_code", status)
        for direction, name in (("in", "input"), ("out", "output")):
            if direction in tokens:
                span.set_attribute(f"gen_ai.usage.{name}_tokens", tokens[direction])
        if status >= 500:
            from opentelemetry.trace import StatusCode

            span.set_status(StatusCode.ERROR)
        span.end()


class Tracing:
    """Starts spans for the exporter, which has its own thread and a bounded queue.

    ``share`` samples the requests whose ``traceparent`` is not sampled.
    """

    def __init__(self, provider: "TracerProvider", share: "TraceIdRatioBased") -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("sage_gateway")
        self._extract = TraceContextTextMapPropagator().extract
        self._kind = SpanKind.SERVER
        self._share = share

    def begin(self, request: Request) -> Span | None:
        """The request's span; None when it is not sampled."""
        shown = request.headers.get(b"traceparent", b"")
        if not self._may_be_sampled(shown):  # making a span that is not recorded takes 7 to 12 us
            return None
        carrier = {"traceparent": shown[:CHARS_MAX].decode("latin-1")}
        attributes = {
            "http.route": request.route,
            "sage.tenant": request.tenant,
            "sage.job": request.job,
            "sage.request_id": request.request_id,
        }
        span = self._tracer.start_span(
            f"POST {request.route}",
            context=self._extract(carrier),
            kind=self._kind,
            attributes={name: value for name, value in attributes.items() if value},
            start_time=time.time_ns(),
        )
        return Span(span) if span.is_recording() else None

    def _may_be_sampled(self, traceparent: bytes) -> bool:
        """False where the sampler would refuse the span; the sampler decides about the others."""
        if len(traceparent) > FLAGS_DIGIT and traceparent[FLAGS_DIGIT] in SAMPLED_DIGITS:
            return True
        share = self._share
        if not share.bound:
            return False
        try:
            trace_id = int(traceparent[TRACE_ID], 16)
        except ValueError:  # there is none, so the span makes one
            return True
        return trace_id & share.TRACE_ID_LIMIT < share.bound

    def close(self) -> None:
        """Export what is left; blocks for as long as ``OTEL_BSP_EXPORT_TIMEOUT`` says."""
        self._provider.shutdown()


def tracing(environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """Tracing as the environment configures it; None without a collector.

    Raises:
        ConfigError: the share of sampled traces is not a number between 0 and 1.
    """
    if not any(environment.get(name) for name in ENDPOINTS):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    share = TraceIdRatioBased(_share(environment.get("OTEL_TRACES_SAMPLER_ARG", "0")))
    name = environment.get("OTEL_SERVICE_NAME", "sage-gateway")
    provider = TracerProvider(
        sampler=ParentBased(share, remote_parent_not_sampled=share),
        resource=Resource.create({"service.name": name}),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, share)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    require(0 <= share <= 1, "environment", "OTEL_TRACES_SAMPLER_ARG", "0 to 1", text, ConfigError)
    return share

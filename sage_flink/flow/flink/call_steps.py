"""A call on Flink: the async operator, and requests and answers that need no Python."""

import json

from pyflink.datastream import DataStream
from pyflink.java_gateway import get_gateway

from sage_flink.common.settings import Settings
from sage_flink.flow.call_options import PRIORITIES
from sage_flink.flow.call_ports import CompletionAnswer, FieldAnswer, TemplateRequest
from sage_flink.flow.flink.call_config import call_config
from sage_flink.flow.flink.savepoint_state import operator_name
from sage_flink.flow.graph import Call


def call(node: Call, requests: DataStream, settings: Settings) -> DataStream:
    """The results of the calls, in a task of their own."""
    native = get_gateway().jvm.org.sage.flink.call.PoolAsyncFunction
    config = call_config(node, settings)
    return DataStream(native.wire(requests._j_data_stream, config))


def has_native_request(node: Call) -> bool:
    """Whether the JVM can make the step's requests; the vectors of merged ones are Python's."""
    spec = node.spec
    return (
        isinstance(spec, TemplateRequest)
        and same_class(spec, "request", "request_template")
        and node.merging is None
    )


def native_request(node: Call, records: DataStream, job: str, run: str) -> DataStream:
    """The call requests of the records; one whose fields make no request is a dead letter."""
    assert isinstance(node.spec, TemplateRequest)
    admission = node.admission
    fresh_s = admission.freshness_s
    config = {
        "step": node.name,
        "job": job,
        "template": [[*part, repr(part.text)] for part in node.spec.request_template.parts],
        "tenant": admission.tenant,
        "priority": admission.priority,
        "priorities": PRIORITIES,
        "freshness_ms": None if fresh_s is None else round(fresh_s * 1000),
        "cache_ttl_s": node.cache_ttl_s,
    }
    native = get_gateway().jvm.org.sage.flink.call.CallRequestOperator
    out = native.wire(records._j_data_stream, json.dumps(config), run)
    return DataStream(out).name(operator_name(f"{node.name}.request"))


def has_native_answer(node: Call) -> bool:
    """Whether the JVM can give the step's answers; those of merged requests are counted apart."""
    spec = node.spec
    if isinstance(spec, FieldAnswer):
        return True
    return (
        isinstance(spec, CompletionAnswer)
        and same_class(spec, "answer", "completion_field")
        and node.merging is None
    )


def native_answer(node: Call, results: DataStream, job: str, run: str) -> DataStream:
    """The records with their results; failed calls are dead letters."""
    native, stream = get_gateway().jvm.org.sage.flink.call, results._j_data_stream
    if isinstance(spec := node.spec, FieldAnswer):
        out = native.FieldAnswerOperator.wire(
            stream, node.name, job, run, spec.answer_field, spec.dim
        )
    else:
        assert isinstance(spec, CompletionAnswer)
        out = native.CompletionAnswerOperator.wire(
            stream, node.name, job, run, spec.model, spec.completion_field
        )
    return DataStream(out).name(operator_name(f"{node.name}.answer"))


def same_class(spec: object, *names: str) -> bool:
    """Whether one class defines both: a subclass that overrides only one of them is Python's."""
    owners = {next((c for c in type(spec).__mro__ if name in vars(c)), None) for name in names}
    return len(owners) == 1

"""A call on Flink: the async operator, and the answer that needs no Python."""

from pyflink.datastream import DataStream
from pyflink.java_gateway import get_gateway

from sage_flink.common.settings import Settings
from sage_flink.flow.flink.call_config import call_config
from sage_flink.flow.flink.savepoint_state import operator_name
from sage_flink.flow.graph import Call
from sage_flink.flow.ports import FieldAnswer


def call(node: Call, requests: DataStream, settings: Settings) -> DataStream:
    """The results of the calls, in a task of their own."""
    native = get_gateway().jvm.org.sage.flink.call.PoolAsyncFunction
    config = call_config(node, settings)
    return DataStream(native.wire(requests._j_data_stream, config))


def field_answer(
    node: Call, spec: FieldAnswer, results: DataStream, job: str, run: str
) -> DataStream:
    """The records with their results in one field; failed calls are dead letters."""
    native = get_gateway().jvm.org.sage.flink.call.FieldAnswerOperator
    stream, dim = results._j_data_stream, spec.dim
    out = native.wire(stream, node.name, job, run, spec.answer_field, dim)
    return DataStream(out).name(operator_name(f"{node.name}.answer"))

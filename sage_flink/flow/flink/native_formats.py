"""Formats in the JVM: the steps that decode and encode messages, without a crossing to Python.

A step stays in Python where it shares the operator of a Python step anyway: there the record is
decoded once, and in front of such a step a crossing is needed in any case.
"""

from pyflink.datastream import DataStream
from pyflink.java_gateway import get_gateway

from sage_flink.flow.flink.savepoint_state import operator_name
from sage_flink.flow.formats import Decode, Encode, NativeFormat
from sage_flink.flow.graph import Call, FlatMap, Graph, Node


def has_native_decoder(graph: Graph, node: Node) -> bool:
    """Whether the step decodes messages that a step outside Python reads."""
    if _format(node, Decode, "native_decoder") != "json":
        return False
    return not all(
        isinstance(user, Call | FlatMap) and not has_native_encoder(user)
        for user in graph.users(node.name)
    )


def has_native_encoder(node: Node) -> bool:
    """Whether the JVM can encode the messages of the step."""
    return _format(node, Encode, "native_encoder") == "json"


def _format(node: Node, kind: type[Decode | Encode], name: str) -> str:
    function = node.function if isinstance(node, FlatMap) else None
    if not isinstance(function, kind) or not isinstance(function.format, NativeFormat):
        return ""
    return str(getattr(function.format, name))


def decode_json(stream: DataStream, step: str, job: str, run: str) -> DataStream:
    """The decoded messages, in order; those that are not JSON are dead letters."""
    native = get_gateway().jvm.org.sage.flink.connector.JsonDecodeOperator
    return _with_name(native.wire(stream._j_data_stream, step, job, run), step)


def encode_json(stream: DataStream, step: str, job: str, run: str) -> DataStream:
    """The messages, in order; records that JSON cannot hold are dead letters."""
    native = get_gateway().jvm.org.sage.flink.connector.JsonEncodeOperator
    return _with_name(native.wire(stream._j_data_stream, step, job, run), step)


def _with_name(j_stream: object, step: str) -> DataStream:
    return DataStream(j_stream).name(operator_name(f"{step}.json"))

"""Decoding in the JVM: a format's step without a crossing to Python.

It pays where the next steps are native too. In front of a Python step it would cost a crossing of
its own, because messages that it cannot decode still go through the step in Python.
"""

from pyflink.datastream import DataStream
from pyflink.java_gateway import get_gateway

from sage_flink.flow.flink.savepoint_state import operator_name
from sage_flink.flow.formats import Decode, NativeFormat
from sage_flink.flow.graph import FlatMap, Graph, StatefulNode


def is_decoded_natively(graph: Graph, node: FlatMap) -> bool:
    """Whether the step decodes JSON whole, for steps of event time, keys and state alone."""
    function = node.function
    if not isinstance(function, Decode) or not isinstance(function.format, NativeFormat):
        return False
    is_json = function.format.native == "json"
    return is_json and all(isinstance(user, StatefulNode) for user in graph.users(node.name))


def decode_json(stream: DataStream, name: str) -> tuple[DataStream, DataStream]:
    """The decoded messages, in order, and those that only Python may decode."""
    native = get_gateway().jvm.org.sage.flink.connector.JsonDecodeOperator
    decoded = native.wire(stream._j_data_stream, name)
    return DataStream(decoded).name(operator_name(name)), DataStream(native.rest(decoded))

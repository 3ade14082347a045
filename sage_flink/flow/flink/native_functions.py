"""Functions in the JVM: steps that decode or encode messages, or read fields, without a crossing to
Python.

A step stays in Python where it shares the operator of a Python step anyway: there the record is
decoded once, and in front of such a step a crossing is needed in any case.
"""

from typing import Any

from pyflink.datastream import DataStream
from pyflink.java_gateway import get_gateway

from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.flink.call_steps import has_native_request, same_class
from sage_flink.flow.flink.savepoint_state import operator_name
from sage_flink.flow.formats import Decode, Encode, NativeFormat
from sage_flink.flow.functions import Filter, Map
from sage_flink.flow.graph import Call, FlatMap, Graph, Node
from sage_flink.flow.ports import NativeFunction, NativeOperator
from sage_flink.flow.stateful.keyed_nodes import Fold


def has_native_decoder(graph: Graph, node: Node) -> bool:
    """Whether the step decodes messages that a step outside Python reads."""
    if _format(node, Decode, "native_decoder") != "json":
        return False
    return not all(_runs_in_python(user) for user in graph.users(node.name))


def _runs_in_python(node: Node) -> bool:
    if isinstance(node, Call):
        return not has_native_request(node)
    native = has_native_encoder(node) or native_operator(node)
    return isinstance(node, FlatMap) and not native


def has_slow_step(graph: Graph) -> bool:
    """Whether one of the steps calls a pool or runs in Python."""
    return any(
        isinstance(node, Call | Fold | MapBatches)
        or (_runs_in_python(node) and not has_native_decoder(graph, node))
        for node in graph.nodes
    )


def has_native_encoder(node: Node) -> bool:
    """Whether the JVM can encode the messages of the step."""
    return _format(node, Encode, "native_encoder") == "json"


def native_operator(node: Node) -> NativeOperator | None:
    """The JVM's operator for the step's function; None where there is none."""
    if not isinstance(node, FlatMap):
        return None
    verb: str = "flat_map"
    function: Any = node.function
    if isinstance(function, Map | Filter):
        verb = "map" if isinstance(function, Map) else "filter"
        function = function.function
    if not isinstance(function, NativeFunction) or not same_class(function, "__call__", "native"):
        return None
    native = function.native
    return native if native and native.verb == verb else None


def apply_native(node: FlatMap, stream: DataStream, job: str, run: str) -> DataStream:
    """The records through the step's operator; those that it refuses are dead letters."""
    native = native_operator(node)
    assert native is not None
    operator = get_gateway().jvm.org.sage.flink
    for part in native.name.split("."):
        operator = getattr(operator, part)
    return DataStream(operator.wire(stream._j_data_stream, node.name, job, run, *native.arguments))


def _format(node: Node, kind: type[Decode | Encode], name: str) -> str:
    function = node.function if isinstance(node, FlatMap) else None
    if not isinstance(function, kind) or not isinstance(function.format, NativeFormat):
        return ""
    return str(getattr(function.format, name))


def decode_json(node: FlatMap, stream: DataStream, job: str, run: str) -> DataStream:
    """The decoded messages, in order; those that are not JSON are dead letters."""
    native = get_gateway().jvm.org.sage.flink.connector.JsonDecodeOperator
    return _with_name(native.wire(stream._j_data_stream, node.name, job, run), f"{node.name}.json")


def encode_json(node: FlatMap, stream: DataStream, job: str, run: str) -> DataStream:
    """The messages, in order; records that JSON cannot hold are dead letters."""
    native = get_gateway().jvm.org.sage.flink.connector.JsonEncodeOperator
    return _with_name(native.wire(stream._j_data_stream, node.name, job, run), f"{node.name}.json")


def _with_name(j_stream: object, uid: str) -> DataStream:
    return DataStream(j_stream).name(operator_name(uid))

"""A call on Flink: the async operator, and the answer that needs no Python."""

import json

from pyflink.datastream import DataStream
from pyflink.java_gateway import get_gateway

from sage_flink.common.connections import GatewayConnection
from sage_flink.common.connections_file import connection_to
from sage_flink.common.settings import Settings
from sage_flink.flow.flink.savepoint_state import operator_name
from sage_flink.flow.graph import Call
from sage_flink.flow.ports import FieldAnswer


def call(node: Call, requests: DataStream, settings: Settings) -> DataStream:
    """The results of the calls, in a task of their own."""
    native = get_gateway().jvm.org.sage.flink.call.PoolAsyncFunction
    pool = connection_to(settings.gateway_url, GatewayConnection)
    config = json.dumps(
        {
            "name": node.name,
            "urls": list(settings.gateway_urls),
            "path": node.spec.path,
            "mode": node.spec.mode,
            "model": node.spec.model,
            "capacity": node.capacity,
            "timeout_ms": round(node.timeout_s * 1000),
            "attempts_max": node.retry.attempts_max,
            "ordered": node.ordered,
            "items_max": node.batching.items_max,
            "tokens_max": node.batching.tokens_max,
            "linger_ms": round(node.batching.linger_s * 1000),
            "slack_ms": max(1, round(node.slack_s * 1000)),
            "dim": getattr(node.spec, "dim", 0),
            "key": pool.key,
            "ca": pool.ca,
            "key_env": "SAGE_GATEWAY_KEY",
            "key_file": "keys/gateway",
        }
    )
    return DataStream(native.wire(requests._j_data_stream, config))


def field_answer(
    node: Call, spec: FieldAnswer, results: DataStream, job: str, run: str
) -> DataStream:
    """The records with their results in one field; failed calls are dead letters."""
    native = get_gateway().jvm.org.sage.flink.call.FieldAnswerOperator
    stream, dim = results._j_data_stream, spec.dim
    out = native.wire(stream, node.name, job, run, spec.answer_field, dim)
    return DataStream(out).name(operator_name(f"{node.name}.answer"))

"""Flink SQL: a job without sage's operators, on the same cluster with the same settings."""

from collections.abc import Iterable

from pyflink.table import StreamTableEnvironment

from sage_flink.common import Settings
from sage_flink.platform.cluster import FlinkOptions, environment


def submit_sql(statements: Iterable[str], *, name: str, options: FlinkOptions) -> str:
    """Run the statements, of which the last one starts a job called ``name``; returns its id.

    Aggregates are computed in one phase, behind the exchange by key, as windows of sage are.
    """
    table = StreamTableEnvironment.create(environment(options, Settings.load()))
    table.get_config().set("table.optimizer.agg-phase-strategy", "ONE_PHASE")
    table.get_config().set("pipeline.name", name)
    *tables, insert = statements
    for statement in tables:
        table.execute_sql(statement)
    client = table.execute_sql(insert).get_job_client()
    assert client is not None
    return str(client.get_job_id())

"""Flink SQL: a job without sage's operators, on the same cluster with the same settings."""

from collections.abc import Iterable

from pyflink.table import StreamTableEnvironment

from benchmark_sage.b1_workload import IngestWork
from sage_flink.common import Settings
from sage_flink.platform.cluster import FlinkOptions, environment


def submit_sql(statements: Iterable[str], *, name: str, options: FlinkOptions) -> str:
    """Run the statements, of which the last one starts a job called ``name``; returns its id.

    Aggregates are computed in one phase, behind the exchange by key, as those of sage are.
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


def statements(work: IngestWork) -> list[str]:
    """The topology of ``work``: its tables, and the query into the table of results."""
    if work.topology == "join":
        tables = [
            _input(work, "orders", work.topics[0], "price INT"),
            _input(work, "payments", work.topics[1], "paid INT"),
        ]
    else:
        columns = "kind STRING, price DOUBLE, page STRING"
        tables = [_input(work, "events", work.topics[0], columns)]
    columns, query = _results(work)
    return [*tables, _output(work, columns), f"INSERT INTO results {query}"]


def _input(work: IngestWork, table: str, topic: str, columns: str) -> str:
    return f"""CREATE TABLE {table} (
        `user` STRING, `at` BIGINT, {columns}, ts AS TO_TIMESTAMP_LTZ(`at`, 3),
        WATERMARK FOR ts AS ts - INTERVAL '{work.disorder_s}' SECOND
    ) WITH ('connector' = 'kafka', 'properties.bootstrap.servers' = '{work.servers}',
        'format' = 'json', 'topic' = '{topic}',
        'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset')"""


def _output(work: IngestWork, columns: str) -> str:
    kind = "'connector' = 'kafka', 'format' = 'json'"
    if work.topology == "count":  # results that replace earlier ones
        kind = "'connector' = 'upsert-kafka', 'key.format' = 'raw', 'value.format' = 'json'"
    return f"""CREATE TABLE results ({columns}) WITH ({kind}, 'topic' = '{work.out}',
        'properties.bootstrap.servers' = '{work.servers}',
        'sink.delivery-guarantee' = 'exactly-once',
        'sink.transactional-id-prefix' = '{work.out}')"""


def _results(work: IngestWork) -> tuple[str, str]:
    """The columns of the results, and the query."""
    window, within = (f"INTERVAL '{seconds}' SECOND" for seconds in (work.window_s, work.within_s))
    match work.topology:
        case "stateless":
            return (
                "`user` STRING, `at` BIGINT, price DOUBLE",
                "SELECT `user`, `at`, price FROM events WHERE kind = 'buy'",
            )
        case "count":
            return (
                "`key` STRING, n BIGINT, PRIMARY KEY (`key`) NOT ENFORCED",
                "SELECT `user`, COUNT(*) FROM events GROUP BY `user`",
            )
        case "sums":
            return (
                "`key` STRING, start_at TIMESTAMP(3), n BIGINT, total DOUBLE, low DOUBLE, "
                "high DOUBLE",
                f"""SELECT `user`, window_start, COUNT(*), SUM(price), MIN(price), MAX(price)
                FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), {window}))
                GROUP BY `user`, window_start, window_end""",  # noqa: S608 - a number
            )
        case "join":
            return (
                "`left` ROW<`user` STRING, `at` BIGINT, price INT>, "
                "`right` ROW<`user` STRING, `at` BIGINT, paid INT>",
                f"""SELECT ROW(o.`user`, o.`at`, o.price), ROW(p.`user`, p.`at`, p.paid)
                FROM orders o JOIN payments p ON o.`user` = p.`user`
                AND p.ts BETWEEN o.ts AND o.ts + {within}""",  # noqa: S608 - a number
            )

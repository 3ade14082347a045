"""What is made of InfluxDB's answers: the parts of each series become the aggregates of groups."""

import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise

import pytest

from sage_connectors import influxdb
from sage_connectors.influxdb_aggregates import PARTS, ServerRow, combine_series, flux, needs_points
from sage_connectors.influxdb_answers import is_null, read_answer
from sage_flink.common import Rejected
from sage_flink.tsdb import Aggregation, TimeSeriesStore, bucket
from sage_flink.tsdb.aggregates import Row, aggregate

SECOND = 10**9
BIG = 2**62
ANSWERS = {
    "count()": """#datatype,string,long,long,string
#group,false,false,false,true
#default,count@0,,,
,result,table,_value,host
,,0,3,a
,,1,1,b
""",
    "_time_ns": f"""#datatype,string,long,long,long,string
#group,false,false,false,false,true
#default,_result,,,,
,result,table,_time_ns,_value,host
,,0,0,{BIG},a
,,0,{SECOND},{BIG + 3},a
,,0,{5 * SECOND},1,a
,,1,{2 * SECOND},7,b
""",
}
RATES = ("rate", "derivative")


def parts_of(rows: list[Row], wanted: Aggregation) -> list[ServerRow]:
    """What the server would answer: each part of each window of each series."""
    by_series = Aggregation(("first", "last"), wanted.every_ns, wanted.period_ns, ("host", "disk"))
    found = []
    for offset_ns in wanted.offsets_ns:
        windows: dict = {}
        for row in sorted(rows, key=lambda row: row.time_ns):
            start_ns = wanted.start_of(row.time_ns, offset_ns) if wanted.every_ns else 0
            windows.setdefault(by_series.group_of(row.tags, start_ns), []).append(row)
        for (tags, start_ns), points in windows.items():
            values = [point.value for point in points]
            steps = [after - before for before, after in pairwise(values)]
            rises = [s if s >= 0 else v for s, v in zip(steps, values[1:], strict=True)]
            known = [rise for rise in rises if rise >= 0]  # the server has null for the others
            parts = {"first": points[0], "last": points[-1]}
            found += [
                ServerRow(f"{name}@{offset_ns}", dict(tags), start_ns, at.time_ns, at.value)
                for name, at in parts.items()
            ]
            if known:
                total = ServerRow(f"increase@{offset_ns}", dict(tags), start_ns, 0, sum(known))
                found.append(total)
    random.Random(1).shuffle(found)
    return found


@pytest.mark.parametrize("by", [(), ("host",), ("host", "disk")])
@pytest.mark.parametrize("windows", [(None, None), (30 * SECOND, None), (10 * SECOND, 30 * SECOND)])
def test_rates_of_series_become_those_of_groups(by, windows) -> None:
    rng = random.Random(3)
    rows = [
        Row(n * SECOND, {"host": rng.choice("abc"), "disk": f"{n % 2}"}, rng.randint(-5, 50))
        for n in range(300)
    ]
    wanted = Aggregation(RATES, *windows, by)

    found = combine_series(parts_of(rows, wanted), wanted, 0)

    expected = aggregate(rows, wanted)
    assert [(one.tags, one.start_ns) for one in found] == [
        (one.tags, one.start_ns) for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        for name, value in other.values.items():
            assert one.values[name] == (None if value is None else pytest.approx(value, rel=1e-12))


def test_a_rate_is_three_queries_and_a_derivative_two_of_them() -> None:
    query = flux("points", Aggregation(RATES, 60 * SECOND), [])

    assert PARTS["rate"] == ("first", "last", "increase")
    assert query.count("yield") == 3
    assert "difference(nonNegative: true, initialZero: true) |> sum()" in query


def test_points_are_read_for_sessions_and_for_changes_of_large_numbers() -> None:
    rate, mean = Aggregation(("rate",)), Aggregation(("mean",))

    assert needs_points(Aggregation(("mean",), session_gap_ns=1), overflows=False)
    assert needs_points(rate, overflows=True)
    assert not needs_points(rate, overflows=False)
    assert not needs_points(mean, overflows=True)


def test_a_null_in_place_of_a_number_is_seen() -> None:
    answer = (
        "#datatype,string,long,double,string\r\n#group,false,false,false,true\r\n"
        "#default,increase@0,,,\r\n,result,table,_value,host\r\n,,0,,a\r\n,,1,2.5,b\r\n"
    )

    rows = list(read_answer(answer.encode()))

    assert [is_null(row) for row in rows] == [True, False]


class AnswersHandler(BaseHTTPRequestHandler):
    """Answers a query with the first of ANSWERS whose key is part of it."""

    def do_GET(self) -> None:
        if self.path.startswith("/query"):
            self._send("name,tags,fieldKey,fieldType\nlatency,,ms,integer\n")
        else:
            self._send(json.dumps({"buckets": [{"id": "1", "name": "ops", "retentionRules": []}]}))

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["query"]
        self._send(next(answer for part, answer in ANSWERS.items() if part in query))

    def _send(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        """Log no request."""


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> Iterator[TimeSeriesStore]:
    """A store of a server that has four points."""
    with HTTPServer(("127.0.0.1", 0), AnswersHandler) as server:
        monkeypatch.setenv("SAGE_INFLUXDB_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("SAGE_INFLUXDB_KEY", "key")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        store = bucket("ops").open()
        yield store
        store.close()
        server.shutdown()
        thread.join()


def test_sessions_are_made_of_the_points_that_are_read(ops: TimeSeriesStore) -> None:
    wanted = Aggregation(("count", "rate", "max"), by=("host",), session_gap_ns=2 * SECOND)

    found = ops.aggregate("latency", "ms", wanted)

    assert [(one.tags["host"], one.start_ns, one.end_ns, one.values) for one in found] == [
        ("a", 0, 3 * SECOND, {"count": 2, "rate": 3.0, "max": BIG + 3}),
        ("a", 5 * SECOND, 7 * SECOND, {"count": 1, "rate": None, "max": 1}),
        ("b", 2 * SECOND, 4 * SECOND, {"count": 1, "rate": None, "max": 7}),
    ]


def test_no_more_points_are_read_than_fit(
    ops: TimeSeriesStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influxdb, "AGGREGATE_POINTS_MAX", 3)

    with pytest.raises(Rejected, match="4 points would be read, at most 3; narrow the range"):
        ops.aggregate("latency", "ms", Aggregation(("count",), session_gap_ns=SECOND))

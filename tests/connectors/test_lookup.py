"""Lookup joins: rows of a service or of Redis, cached, missing, wrong, and away."""

import json
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

import pytest
import redis
from loopback_server import loopback_server
from redis_server import redis_server

import sage_flink as sage
from sage_connectors import HttpTable, Lookup, RedisTable
from sage_flink.common import ConfigError, PipelineError, Record, Rejected, StoreUnavailable
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.ports import OpenContext

ROWS = {"7": {"name": "anna"}, "a/b ü": [1, None], "zero": 0}


class Service(BaseHTTPRequestHandler):
    """Answers with ROWS; the special keys answer as they say."""

    protocol_version = "HTTP/1.1"
    asked: list[str] = []  # noqa: RUF012 - all requests share it

    def do_GET(self):
        key = unquote(self.path.removeprefix("/rows/"))
        self.asked.append(key)
        status = int(key) if key in {"400", "410", "429", "503"} else 200
        status = 404 if status == 200 and key not in {*ROWS, "rubbish"} else status
        body = b"{" if key == "rubbish" else json.dumps(ROWS.get(key)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Log no request."""


@pytest.fixture
def service():
    Service.asked.clear()
    with loopback_server(Service) as port:
        yield HttpTable(f"http://127.0.0.1:{port}/rows/{{key}}", in_flight_max=4)


@pytest.fixture(params=["http", "redis"])
def table(request, tmp_path):
    if request.param == "http":
        yield request.getfixturevalue("service")
        return
    with redis_server(tmp_path) as url:
        with redis.Redis.from_url(url) as client:
            for key, row in ROWS.items():
                client.set(f"row/{key}", json.dumps(row))
            client.set("row/rubbish", "{")
        yield RedisTable(url, prefix="row/")


def events(*values):
    return [Record(f"e/{n}", value) for n, value in enumerate(values)]


def opened(table, **options):
    lookup = Lookup(table, "user", "row", **options)
    lookup.open(OpenContext("job", "step"))
    return lookup


async def test_each_record_gets_the_row_of_its_key(table):
    values = [{"user": 7, "x": 1}, {"user": "a/b ü"}, {"user": "zero"}, {"user": "none"}]
    values += [{"user": None}, {"user": "7"}]
    read = sage.flow.read("in", ListSource(tuple(events(*values))))

    graph = read.map_batches("user", Lookup(table, "user", "row")).write("out", ListSink())
    outcome = await sage.flow.run(graph)

    rows = [record.value["row"] for record in outcome.written["out"]]
    assert rows == [{"name": "anna"}, [1, None], 0, None, None, {"name": "anna"}]
    assert outcome.written["out"][0].value == {"user": 7, "x": 1, "row": {"name": "anna"}}
    assert outcome.failed == []


async def test_records_without_a_row_can_be_dead_letters(table):
    values = [{"user": "7"}, {"user": "none"}, {"user": None}, {}, "text", {"user": 1.5}]
    read = sage.flow.read("in", ListSource(tuple(events(*values))))
    lookup = Lookup(table, "user", "row", missing="dead_letter")

    outcome = await sage.flow.run(read.map_batches("user", lookup).write("out", ListSink()))

    assert [record.id for record in outcome.written["out"]] == ["e/0"]
    assert [failed.reason for failed in outcome.failed] == [
        "no row for 'none'",
        "field 'user' is null",
        "field 'user' is missing",
        "the value must be named fields, got str",
        "field 'user' must be text or a whole number, got 1.5",
    ]


async def test_a_row_that_is_no_json_refuses_its_record_alone(table):
    values = [{"user": "7"}, {"user": "rubbish"}, {"user": "zero"}]
    read = sage.flow.read("in", ListSource(tuple(events(*values))))

    graph = read.map_batches("user", Lookup(table, "user", "row")).write("out", ListSink())
    outcome = await sage.flow.run(graph)

    assert [record.id for record in outcome.written["out"]] == ["e/0", "e/2"]
    assert [failed.record.id for failed in outcome.failed] == ["e/1"]
    assert "no JSON" in outcome.failed[0].reason


def test_a_key_is_read_once_while_its_row_is_cached(service):
    lookup = opened(service, cache_s=0.3)

    for _ in range(3):
        lookup(events({"user": "7"}, {"user": "7"}, {"user": "none"}))
    assert sorted(Service.asked) == ["7", "none"]
    time.sleep(0.4)
    lookup(events({"user": "7"}))
    lookup.close()

    assert Service.asked.count("7") == 2


def test_the_cache_holds_so_many_rows(service):
    lookup = opened(service, cache_rows_max=2)

    for user in ("7", "zero", "x", "7"):
        lookup(events({"user": user}))
    lookup.close()

    assert Service.asked == ["7", "zero", "x", "7"]


@pytest.mark.parametrize("key", ["503", "429"])
def test_a_service_that_is_busy_is_asked_again_later(service, key):
    lookup = opened(service)
    with pytest.raises(StoreUnavailable, match=f"answered {key}"):
        lookup(events({"user": key}))
    lookup.close()


def test_other_statuses_refuse_the_record_or_are_no_row(service):
    lookup = opened(service)
    assert lookup(events({"user": "410"}))[0]["row"] is None
    with pytest.raises(Rejected, match="answered 400"):
        lookup(events({"user": "400"}))
    lookup.close()


@pytest.mark.parametrize(
    "table", [HttpTable("http://127.0.0.1:1/{key}"), RedisTable("redis://127.0.0.1:1/0")]
)
def test_a_table_that_is_away_is_waited_for(table):
    lookup = opened(table)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
        lookup(events({"user": "7"}))
    lookup.close()


@pytest.mark.parametrize(
    ("make", "flaw"),
    [
        (lambda: HttpTable("ftp://x/{key}"), "url must be an address such as"),
        (lambda: HttpTable("http://x/"), "url must be an address such as"),
        (lambda: HttpTable("http://x/{key}", timeout_s=0), "timeout_s must be more than 0"),
        (lambda: Lookup("users", "user", "row"), "lookup: table must be a table such as"),
        (lambda: Lookup(HttpTable("http://x/{key}"), "", "row"), "lookup: field must be a name"),
        (
            lambda: Lookup(HttpTable("http://x/{key}"), "a", "b", missing="drop"),
            "missing must be null or dead_letter",
        ),
        (lambda: Lookup(HttpTable("http://x/{key}"), "a", "b", cache_s=0), "cache_s must be more"),
    ],
)
def test_wrong_arguments_are_refused(make, flaw):
    with pytest.raises(PipelineError, match=flaw):
        make()


@pytest.mark.parametrize("table", [RedisTable(), RedisTable("redis://x", "named")])
def test_redis_is_named_or_addressed(table):
    with pytest.raises(ConfigError, match="either a url or the name of a connection"):
        table.reader()

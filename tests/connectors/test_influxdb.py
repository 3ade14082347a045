"""Which servers receive InfluxDB's key, its error messages, and the cost of a bad point."""

import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from sage_flink.common import ConfigError, StoreUnavailable
from sage_flink.tsdb import Point, bucket


class StatusHandler(BaseHTTPRequestHandler):
    """Responds to every request with the server's status, and records the received keys."""

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])  # type: ignore[attr-defined]
        body = json.dumps({"code": "x", "message": "no,\nnot now"}).encode()
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log no request."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    monkeypatch.setenv("SAGE_INFLUXDB_KEY", "the settings' key")
    with HTTPServer(("127.0.0.1", 0), StatusHandler) as opened:
        opened.keys, opened.status = [], 401  # type: ignore[attr-defined]
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


def url(server: HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_a_foreign_server_does_not_get_the_settings_key(server) -> None:
    with pytest.raises(ConfigError, match=r"wants a key.*set SAGE_INFLUXDB_URL"):
        bucket("ops", url=url(server)).open()

    assert server.keys == [None]


@pytest.mark.parametrize("named", [False, True])
def test_the_settings_server_gets_the_settings_key(
    server, named, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_INFLUXDB_URL", f"{url(server)}/")

    with pytest.raises(ConfigError, match="the key is not accepted"):
        bucket("ops", url=url(server) if named else "").open()

    assert server.keys == ["Token the settings' key"]


def test_an_error_is_one_line_without_headers(server) -> None:
    server.status = 503

    with pytest.raises(StoreUnavailable) as caught:
        bucket("ops", url=url(server)).open()

    assert "bucket 'ops': no, not now; `sage ps`" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "headers" not in str(caught.value).lower()


def test_the_error_of_an_unreachable_server_is_one_line(server) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        bucket("ops", url="http://127.0.0.1:1").open()

    assert "refused" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.service
def test_three_poison_points_of_five_hundred_cost_a_few_dozen_requests() -> None:
    from sage_connectors.influxdb import InfluxStore
    from sage_connectors.influxdb_field_types import ServerFieldTypes

    class UnknownTypes(ServerFieldTypes):
        """As where another writer has just made the field."""

        def conflict(self, point: Point) -> str:
            return ""

    class CountingStore(InfluxStore):
        requests = 0

        def _write(self, lines: Sequence[tuple[int, str]]) -> None:
            self.requests += 1
            super()._write(lines)

    store, name = CountingStore(bucket("conformance")), f"m{uuid.uuid4().hex}"
    store.append([Point(name, {}, {"v": 0.0}, 1)])
    store.requests, store.types = 0, UnknownTypes(store.field_types)
    texts = {3, 250, 499}  # of a type other than that of the field

    refused = store.append(
        [Point(name, {}, {"v": "text" if n in texts else float(n)}, 10 + n) for n in range(500)]
    )

    assert {position for position, _ in refused} == texts
    assert (store.count(name), store.requests) == (498, 47)
    store.drop(name)
    store.close()

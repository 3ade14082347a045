"""InfluxDB over TLS with a token, against a server that the tests start."""

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from certificates import Authority
from redis_server import free_port, listens
from waiting import wait_until

from sage_connectors.server_check import check_server
from sage_flink import flow, tsdb
from sage_flink.common import ConfigError, Record, sage_home
from sage_flink.common.connections_file import load_connections
from sage_flink.flow.lists import ListSource

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
TOKEN = "influx-sword-fi-sh"


@contextmanager
def influxdb(folder: Path) -> Iterator[str]:
    """The URL of a server with the organisation ``o`` that takes ``TOKEN``."""
    authority = Authority(folder)
    certificate, key = authority.certificate("server", ["127.0.0.1"])
    port = free_port()
    command = [
        str(sage_home() / "lib" / "influxd"),
        f"--bolt-path={folder}/influxd.bolt",
        f"--sqlite-path={folder}/influxd.sqlite",
        f"--engine-path={folder}/engine",
        f"--http-bind-address=127.0.0.1:{port}",
        f"--tls-cert={certificate}",
        f"--tls-key={key}",
        "--reporting-disabled",
    ]
    with (folder / "influxd.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), 90, f"influxd, see {folder}/influxd.log")
        url = f"https://127.0.0.1:{port}"
        body = {"username": "u", "password": "long-enough", "org": "o", "bucket": "b"}
        context = ssl.create_default_context(cafile=authority.file)
        with httpx.Client(verify=context, trust_env=False, timeout=60) as client:
            client.post(f"{url}/api/v2/setup", json={**body, "token": TOKEN}).raise_for_status()
        yield url
    finally:
        server.kill()
        server.wait()


def log_of(folder: Path) -> str:
    return (folder / "influxd.log").read_text()


async def test_points_are_written_over_tls_with_the_token_of_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong").write_text("hunter2")
    monkeypatch.setenv("OPS_TOKEN", TOKEN)
    with influxdb(tmp_path) as url:
        ops = {"kind": "influxdb", "url": url, "org": "o", "ca": f"{tmp_path}/ca.pem"}
        named = {"ops": {**ops, "token": "env:OPS_TOKEN"}}
        named["bad"] = {**ops, "token": f"file:{tmp_path}/wrong"}
        (tmp_path / "connections.yaml").write_text(json.dumps(named))
        monkeypatch.setenv("SAGE_CONNECTIONS", str(tmp_path / "connections.yaml"))
        points = [{"measurement": "m", "fields": {"v": n}, "timestamp_ns": n} for n in range(1, 21)]
        records = tuple(Record(str(n), point, origin=str(n)) for n, point in enumerate(points))
        bucket = tsdb.bucket("b", connection="ops")

        for _ in range(2):  # written again, each point is there once
            await flow.run(flow.read("in", ListSource(records)).write("points", bucket))

        store = bucket.open()
        assert store.count("m") == len(points)
        store.close()
        assert check_server(load_connections()["ops"][0]).startswith("InfluxDB ")
        with pytest.raises(ConfigError, match=r"connection 'bad': token: .*/wrong is not accepted"):
            check_server(load_connections()["bad"][0])
        with pytest.raises(ConfigError, match=r"connection 'bad': token: .*/wrong is not accepted"):
            tsdb.bucket("b", connection="bad").open()
    assert TOKEN not in log_of(tmp_path)

"""Servers with TLS and a key: the pool over https, InfluxDB's and Milvus's clients, Redis."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, server_context
from loopback_server import loopback_server
from redis_server import free_port, listens
from waiting import wait_until

from sage_connectors import http_pool
from sage_connectors.server_check import check_server
from sage_connectors.tls import Tls
from sage_flink import tsdb
from sage_flink.common import ConfigError, StoreUnavailable
from sage_flink.common.connections import parse
from sage_flink.common.errors import PoolAway
from sage_gateway.engines.egress import session, target

SECRET = "sword-fi-sh"


class KeyedServer(BaseHTTPRequestHandler):
    """Takes requests with the key only: the models of a pool, the health of an InfluxDB."""

    def do_GET(self) -> None:
        good = self.headers.get("Authorization") in {f"Bearer {SECRET}", f"Token {SECRET}"}
        self._answer(200 if good else 401, {"data": [{"id": "m"}], "buckets": []})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not printed."""


@contextmanager
def https_server(folder: Path, certificate: str) -> Iterator[str]:
    """The URL of a server that shows the certificate while the block runs."""
    with loopback_server(KeyedServer, server_context(folder, certificate)) as port:
        yield f"https://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    authority = Authority(made)
    authority.certificate("server", ["127.0.0.1", "localhost"])
    authority.certificate("expired", ["127.0.0.1"], days=-3)
    authority.certificate("elsewhere", ["pool.example"])
    Authority(made, "other")
    (made / "key").write_text(f"{SECRET}\n")
    (made / "wrong").write_text("hunter2\n")
    return made


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    monkeypatch.delenv("SAGE_CONNECTIONS", raising=False)
    return tmp_path


def pool(folder: Path, url: str, **changes: Any) -> Any:
    fields = {"kind": "gateway", "url": url, "key": f"file:{folder}/key", "ca": f"{folder}/ca.pem"}
    return parse("pool", {**fields, **changes})


async def test_the_pool_is_called_over_https_with_the_key_of_its_connection(
    folder: Path, home: Path
) -> None:
    with https_server(folder, "server") as url:
        (home / "connections.yaml").write_text(
            json.dumps({"pool": pool(folder, url).model_dump(exclude={"name"})})
        )

        async with http_pool(connection="pool") as client:
            reply = await client.post("/v1/embeddings", b"{}", {})
        async with http_pool(url, SECRET) as stranger:
            with pytest.raises(PoolAway, match="certificate verify failed"):
                await stranger.post("/v1/embeddings", b"{}", {})

        assert (reply.status, check_server(pool(folder, url))) == (200, "1 models")


async def test_a_remote_engine_has_an_authority_of_its_own(folder: Path) -> None:
    with https_server(folder, "server") as url:
        engine = target(url, ["127.0.0.1"], ca=f"{folder}/ca.pem")
        async with (
            session(engine, ["127.0.0.1"]) as client,
            client.get(engine.address("/v1/models")) as answer,
        ):
            assert answer.status == 401  # it wants a key, and TLS was accepted
    with pytest.raises(ConfigError, match=r"engine remote: ca: .*/absent.pem cannot be used"):
        target(url, ["127.0.0.1"], ca=f"{folder}/absent.pem")


@pytest.mark.parametrize(
    ("certificate", "changes", "sentence"),
    [
        ("server", {"key": "file:{folder}/wrong"}, r"key: https://\S+/v1/models does not accept"),
        ("server", {"key": "env:ABSENT_KEY"}, "key: the environment variable ABSENT_KEY is not"),
        ("expired", {}, r"the certificate of 127.0.0.1:\d+ expired on \w{3} .*GMT"),
        ("elsewhere", {}, r"url: the certificate of .* is not for 127.0.0.1: it is for pool.exam"),
        ("server", {"ca": "{folder}/other.pem"}, r"ca: the certificate of .* is not signed by ca"),
        ("server", {"ca": "{folder}/key"}, r"ca: .*/key cannot be used"),
    ],
)
def test_a_wrong_setting_of_a_pool_is_named(
    folder: Path, certificate: str, changes: dict[str, str], sentence: str
) -> None:
    with https_server(folder, certificate) as url:
        changes = {name: value.format(folder=folder) for name, value in changes.items()}

        with pytest.raises(ConfigError, match=sentence) as caught:
            check_server(pool(folder, url, **changes))

    assert SECRET not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("kind", ["milvus", "influxdb"])
def test_a_store_with_an_expired_certificate_is_named_when_it_is_opened(
    folder: Path, kind: str
) -> None:
    secret = {"token": f"file:{folder}/key", "ca": f"{folder}/ca.pem"}
    with https_server(folder, "expired") as url:
        store = parse("store", {"kind": kind, "url": url, **secret})

        with pytest.raises(ConfigError, match=rf"^connection 'store' \({kind} .*expired on "):
            check_server(store)


def test_the_token_of_a_connection_is_refused_by_its_name(folder: Path, home: Path) -> None:
    with https_server(folder, "server") as url:
        fields = {"kind": "influxdb", "url": url, "org": "o", "ca": f"{folder}/ca.pem"}
        (home / "connections.yaml").write_text(
            json.dumps({"ops": {**fields, "token": f"file:{folder}/wrong"}})
        )

        with pytest.raises(ConfigError, match=r"connection 'ops': token: .*/wrong is not accepted"):
            tsdb.bucket("b", connection="ops").open()


def test_a_server_that_is_away_is_left_to_the_client(folder: Path) -> None:
    Tls("x", f"{folder}/ca.pem").check(f"https://127.0.0.1:{free_port()}")


@contextmanager
def redis_with_tls(folder: Path) -> Iterator[str]:
    program = shutil.which("redis-server")
    assert program, "apt-get install redis-server"
    port = free_port()
    settings = folder / "redis.conf"
    settings.write_text(
        f"bind 127.0.0.1\nport 0\ntls-port {port}\ntls-auth-clients no\nsave ''\ndir {folder}\n"
        f"tls-cert-file {folder}/server.pem\ntls-key-file {folder}/server.key\n"
        f"tls-ca-cert-file {folder}/ca.pem\nrequirepass {SECRET}\n"
    )
    with (folder / "redis.log").open("w") as log:
        server = subprocess.Popen([program, settings], stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), 10, f"redis-server, see {folder}/redis.log")
        yield f"rediss://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


@pytest.mark.processes
async def test_gateways_share_a_redis_with_tls_and_a_password(folder: Path, home: Path) -> None:
    from sage_gateway.config.storage_spec import LedgerSpec
    from sage_gateway.storage.redis import RedisClient

    with redis_with_tls(folder) as url:
        fields = {"kind": "redis", "url": url, "ca": f"{folder}/ca.pem"}
        good = {**fields, "password": f"file:{folder}/key"}
        bad = {**fields, "password": f"file:{folder}/wrong"}
        (home / "connections.yaml").write_text(json.dumps({"cache": good, "bad": bad}))

        shared = RedisClient(LedgerSpec(store="redis", connection="cache").redis, "the Redis")
        assert await shared.run("return 7", [], []) == 7
        await shared.close()
        refused = RedisClient(LedgerSpec(store="redis", connection="bad").redis, "the Redis")
        with pytest.raises(StoreUnavailable, match=r"see ledger.connection 'bad'"):
            await refused.run("return 7", [], [])
        await refused.close()

        assert check_server(parse("cache", good)).startswith("Redis ")
        with pytest.raises(ConfigError, match=r"^connection 'bad' .*: username, password: "):
            check_server(parse("bad", bad))
        with pytest.raises(ConfigError, match=r": ca: the certificate of .* is not signed by"):
            check_server(parse("bad", {**good, "ca": f"{folder}/other.pem"}))

"""A schema registry for tests over TLS with a login, and some with a fault."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from certificates import Authority, server_context
from loopback_server import loopback_server

USER, SECRET, KEY_PASSWORD, WRONG = "ingest", "sword-fi-sh", "key-sword", "hunter2"
BASIC = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
AVRO_SCHEMA, PROTO_SCHEMA = '"string"', 'syntax = "proto3"; message Tree { string name = 1; }'


def write_certificates(folder: Path) -> None:
    """The authority, servers and clients with good and bad certificates, and files of secrets."""
    authority, other = Authority(folder), Authority(folder, "other")
    authority.certificate("server", ["127.0.0.1", "localhost"])
    authority.certificate("expired", ["127.0.0.1"], days=-3)
    authority.certificate("elsewhere", ["registry.example"])
    authority.certificate("client", ["client.example"])
    authority.certificate("locked", ["client.example"], password=KEY_PASSWORD)
    other.certificate("stranger", ["client.example"])
    (folder / "secret").write_text(f"{SECRET}\n")
    (folder / "key-password").write_text(f"{KEY_PASSWORD}\n")
    (folder / "wrong").write_text(f"{WRONG}\n")
    (folder / "lines").write_text(f"{SECRET}\n{SECRET}\n")


@contextmanager
def secured_registry(folder: Path, kind: str = "server") -> Iterator[str]:
    """The URL of a registry that runs during the block.

    ``kind`` is the name of its certificate, or ``mutual``, ``proxy`` or ``plain``.
    """
    handler = {"mutual": OpenRegistry, "proxy": Proxy}.get(kind, Registry)
    name = kind if (folder / f"{kind}.pem").exists() else "server"
    tls = server_context(folder, name, clients_of="ca" if kind == "mutual" else "")
    with loopback_server(handler, None if kind == "plain" else tls) as port:
        yield f"https://127.0.0.1:{port}"


class Registry(BaseHTTPRequestHandler):
    """Takes requests with the login: schema 2 is one of Protobuf, any other id one of Avro."""

    logins: tuple[str | None, ...] = (f"Basic {BASIC}", f"Bearer {SECRET}")

    def do_GET(self) -> None:
        self._answer(2 if self.path.endswith("/2") else 1)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._answer(2 if body.get("schemaType") == "PROTOBUF" else 1)

    def _answer(self, schema: int) -> None:
        login = self.headers.get("authorization")
        if login not in self.logins:
            self._send(401, {"error_code": 40101, "message": f"unknown: {login}"})
        elif not self.path.startswith(("/subjects", "/schemas")):
            self._send(404, {"error_code": 404})
        elif self.path == "/subjects":
            self._send(200, ["t-value"])
        elif schema == 2:
            self._send(200, {"id": 2, "schema": PROTO_SCHEMA, "schemaType": "PROTOBUF"})
        else:
            self._send(200, {"id": 1, "schema": AVRO_SCHEMA})

    def _send(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not printed."""


class OpenRegistry(Registry):
    """Takes requests without a login: TLS demands a certificate of the client."""

    logins = (None,)


class Proxy(Registry):
    """nginx in front of a registry: a wrong certificate of the client is an answer of HTTP."""

    def _answer(self, schema: int) -> None:
        self._send(400, "400 The SSL certificate error")

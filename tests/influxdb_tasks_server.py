"""A server with InfluxDB's API of buckets and tasks, in this process: it runs no task."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class TasksHandler(BaseHTTPRequestHandler):
    """InfluxDB's API of buckets and tasks, as far as a client of them needs it."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        kind = url.path.split("/")[3]
        found = list(self.server.rows[kind].values())  # type: ignore[attr-defined]
        if "name" in asked:
            found = [row for row in found if row["name"] == asked["name"]]
        found = [row for row in found if row["id"] > asked.get("after", "")]
        limit = int(asked.get("limit", 20))
        links = {"self": self.path} | ({"next": "/next"} if len(found) >= limit else {})
        self._send({kind: found[:limit], "links": links})

    def do_POST(self) -> None:
        kind = self.path.split("?")[0].split("/")[3]
        self._store(kind, f"{self.server.count():016x}", self._body())  # type: ignore[attr-defined]

    def do_PATCH(self) -> None:
        *_, kind, id_ = self.path.split("?")[0].split("/")
        rows = self.server.rows[kind]  # type: ignore[attr-defined]
        self._store(kind, id_, rows[id_] | self._body())

    def do_DELETE(self) -> None:
        self.server.changes += 1  # type: ignore[attr-defined]
        *_, kind, id_ = self.path.split("/")
        del self.server.rows[kind][id_]  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def _store(self, kind: str, id_: str, row: dict[str, Any]) -> None:
        if kind == "tasks":
            name = row["flux"].split('name: "', 1)[1].split('"', 1)[0]
            row |= {"name": name, "orgID": "1" * 16}
        self.server.changes += 1  # type: ignore[attr-defined]
        self.server.rows[kind][id_] = row | {"id": id_}  # type: ignore[attr-defined]
        self._send(row | {"id": id_})

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _send(self, body: object) -> None:
        sent = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args: object) -> None:
        """Log no request."""


class TasksServer(HTTPServer):
    """Keeps what it receives, and counts the changes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), TasksHandler)
        self.changes = self.made = 0
        self.rows: dict[str, dict[str, dict[str, Any]]] = {
            "buckets": {"b1": {"id": "b1", "name": "ops", "orgID": "o", "retentionRules": []}},
            "tasks": {},
            "orgs": {"o": {"id": "o", "name": "sage"}},
        }

    def count(self) -> int:
        self.made += 1
        return self.made

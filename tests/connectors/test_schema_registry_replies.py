"""What the replies of a schema registry mean: wait, reject the message, or refuse the job."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from loopback_server import loopback_server

from sage_connectors import Avro
from sage_connectors.formats.schema_registry import frame
from sage_flink.common import ConfigError, Record, Rejected, StoreUnavailable
from sage_flink.flow import OpenContext
from sage_flink.flow.formats import Decode

KIND = {"type": "enum", "name": "Kind", "symbols": ["OAK", "ELM"]}
TREE = {"type": "record", "name": "Tree", "fields": [{"name": "kind", "type": "Kind"}]}
REPLIES = {
    "/schemas/ids/1": {
        "schema": json.dumps(TREE),
        "references": [{"name": "Kind", "subject": "kinds", "version": 3}],
    },
    "/subjects": ["kinds"],
    "/subjects/kinds/versions/3": {"schema": json.dumps(KIND)},
}


@pytest.fixture
def statuses() -> list[int]:
    """The next replies' statuses; without any, replies are those of a registry that works."""
    return []


@pytest.fixture
def registry(statuses: list[int]) -> Iterator[str]:
    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = REPLIES.get(self.path)
            body = json.dumps(found).encode() if found else b'{"error_code": 40403}'
            self.send_response(statuses.pop(0) if statuses else 200 if found else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with loopback_server(Registry) as port:
        yield f"http://127.0.0.1:{port}"


def message(schema_id: int) -> Record:
    return Record("t/0/0", frame(schema_id, b"\x02"))


def test_a_message_waits_until_the_registry_answers_and_imports_are_read(
    registry: str, statuses: list[int]
) -> None:
    step = Decode(Avro(registry=registry))
    step.open(OpenContext("job", "trees"))
    statuses[:] = [503, 401, 200, 500]

    (record,) = step(message(1))

    assert record.value == {"kind": "ELM"}
    assert statuses == []


def test_a_schema_is_fetched_once(registry: str, statuses: list[int]) -> None:
    decode = Avro(registry=registry).decoder()
    decode(message(1))
    statuses[:] = [503]

    assert [record.value for record in decode(message(1))] == [{"kind": "ELM"}]
    assert statuses == [503]


def test_a_registry_of_this_machine_is_never_reached_by_a_proxy(
    registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    assert list(Avro(registry=registry).decoder()(message(1)))


def test_a_registry_that_wants_a_login_refuses_the_start_of_a_job(
    registry: str, statuses: list[int]
) -> None:
    statuses[:] = [401]

    with pytest.raises(ConfigError, match=r"schema registry at \S+: it wants a login"):
        Avro(registry=registry).decoder()


@pytest.mark.parametrize("status", [403, 429, 503])
def test_a_registry_that_does_not_list_its_subjects_is_left_to_the_messages(
    registry: str, statuses: list[int], status: int
) -> None:
    statuses[:] = [status]

    assert list(Avro(registry=registry).decoder()(message(1)))


def test_a_registry_that_is_away_does_not_keep_a_job_from_starting() -> None:
    Decode(Avro(registry="http://127.0.0.1:1")).prepare()


def test_an_unknown_schema_rejects_its_message(registry: str) -> None:
    with pytest.raises(Rejected, match="does not know schema 2"):
        Avro(registry=registry).decoder()(message(2))


@pytest.mark.parametrize("status", [404, 409, 422])
def test_a_refused_schema_refuses_the_job(registry: str, statuses: list[int], status: int) -> None:
    statuses[:] = [status]

    with pytest.raises(ConfigError, match="subject 't-value'"):
        Avro('"int"', registry).encoder("t")


def test_a_registry_that_is_away_is_named() -> None:
    with pytest.raises(StoreUnavailable, match=r"schema registry at http://127\.0\.0\.1:1"):
        Avro('"int"', "http://127.0.0.1:1").encoder("t")

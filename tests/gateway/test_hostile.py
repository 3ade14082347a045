"""Hostile input is refused with an error in OpenAI's schema, and reaches no engine."""

import socket
from typing import Any

import httpx
import pytest

KEY = b"sk-sage-test"
RESPONSES = "/v1/responses"
ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", RESPONSES)
GOOD = (
    b'{"model":"%b","messages":[{"role":"user","content":"echo hi"}],'
    b'"prompt":"x","input":"x","query":"x","documents":["x"]%b}'
)
MODELS = dict(zip(ROUTES, (b"talk", b"talk", b"vectors", b"ranks", b"talk"), strict=True))

BODIES = {
    "nothing": b"",
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "an empty object": b"{}",
    "half": b'{"model": "talk", ',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"model": "talk"}'.encode("utf-16"),
    "no utf-8": b"\xff\xfe\xfd",
    "NUL bytes": b"\x00" * 1000,
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "xml": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>",
    "a form": b"model=talk&messages=x",
}
FIELDS = {
    "deep": b',"x":' + b"[" * 5000 + b"]" * 5000,
    "NaN": b',"temperature":NaN',
    "Infinity": b',"temperature":Infinity',
    "no utf-8": b',"x":"\xff\xfe"',
    "no utf-8 in a name": b',"\xff":1',
    "half a surrogate": b',"x":"\\ud800"',
    "a raw control character": b',"x":"\x01"',
    "a second value": b"} {",
    "a trailing comma": b",",
    "a comment": b",/* x */",
}
NUMBERS = {
    "huge": b"9" * 400,
    "beyond 64 bits": b"18446744073709551617",
    "beyond 32 bits": b"2147483648",
    "too negative": b"-2",
    "a fraction": b"1.5",
    "with an exponent": b"1e30",
    "a text": b'"7"',
    "true": b"true",
    "a list": b"[7]",
}


@pytest.fixture(scope="module")
def target(start: Any, fake: Any) -> Any:
    models = {
        "talk": fake(aliases=["alias"]),
        "vectors": fake("embedding"),
        "ranks": fake("rerank"),
    }
    with start(models) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def engines(target: Any) -> Any:
    """A function that counts the requests at all engines."""
    with httpx.Client(verify=False) as client:
        urls = [model.replica_slots[0].url("/seen") for model in target.pool.models.values()]
        yield lambda: sum(client.get(url).json()["requests"] for url in urls)


def assert_refused(target: Any, engines: Any, path: str, body: bytes) -> None:
    before = engines()
    answer = target.client.post(path, content=body)

    assert answer.status_code == 400, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    assert len(answer.content) < 2000
    assert engines() == before


def good(path: str, more: bytes = b"", model: bytes = b"") -> bytes:
    stored = b'"prompt":"x",' if path == RESPONSES else b""  # there it is the id of a stored one
    return GOOD.replace(stored, b"") % (model or MODELS[path], more)


@pytest.mark.parametrize("path", ROUTES)
def test_a_good_request_is_answered(target: Any, path: str) -> None:
    assert target.client.post(path, content=good(path)).status_code == 200


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_an_invalid_request_is_a_400(target: Any, engines: Any, path: str, body: bytes) -> None:
    assert_refused(target, engines, path, body)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("more", FIELDS.values(), ids=FIELDS)
def test_an_unknown_field_that_is_not_json_is_a_400(
    target: Any, engines: Any, path: str, more: bytes
) -> None:
    assert_refused(target, engines, path, good(path, more))


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("field", [b"max_tokens", b"max_completion_tokens", b"n"])
def test_a_count_outside_its_range_is_a_400(
    target: Any, engines: Any, field: bytes, number: bytes
) -> None:
    assert_refused(target, engines, ROUTES[0], good(ROUTES[0], b',"%b":%b' % (field, number)))


ODD = {
    "a large number": b',"x":1e999',
    "many digits": b',"x":' + b"9" * 5000,
    "NUL": b',"x":"\\u0000"',
    "deep": b',"x":' + b"[" * 300 + b"]" * 300,
}


@pytest.mark.parametrize("more", ODD.values(), ids=ODD)
def test_any_json_value_is_forwarded_under_an_alias_too(target: Any, more: bytes) -> None:
    for model in (b"talk", b"alias"):
        status = target.client.post(ROUTES[0], content=good(ROUTES[0], more, model)).status_code
        assert status in (200, 400)
    assert not target.pool.models["talk"].replica_slots[0].suspect


@pytest.mark.parametrize("depth", [300, 900, 2000])
def test_a_tool_of_a_response_that_is_nested_too_deeply_is_a_400(
    target: Any, engines: Any, depth: int
) -> None:
    tool = b'{"type":"function","name":"f","parameters":%b{}%b}'
    deep = tool % (b'{"a":' * depth, b"}" * depth)

    assert_refused(target, engines, RESPONSES, good(RESPONSES, b',"tools":[%b]' % deep))


HEADS = {
    "a negative length": b"content-length: -1\r\n",
    "two lengths": b"content-length: 5\r\ncontent-length: 6\r\n",
    "a length and chunks": b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
    "no number": b"content-length: five\r\n",
    "an overflow": b"content-length: 99999999999999999999999\r\n",
    "a header without a name": b": x\r\n",
    "a blank in a name": b"a b: x\r\n",
    "a NUL": b"x: \x00\r\n",
    "a bare line feed": b"x: y\nz: w\r\n",
    "a long header": b"x: " + b"y" * (1 << 20) + b"\r\n",
    "many headers": b"".join(b"x-%d: y\r\n" % i for i in range(20_000)),
    "no utf-8": b"x-request-id: \xff\xfe\r\nx-sage-tenant: \xff\r\nx-sage-priority: \xff\r\n",
    "a strange deadline": b"x-sage-deadline-ms: \xb2\r\n",
    "a huge deadline": b"x-sage-deadline-ms: 999999999999999\r\n",
    "a broken cache": b"x-sage-cache: ttl=\xb2\r\n",
    "a split answer": b"x-request-id: a%0d%0aset-cookie: x\r\n",
}


def send_raw(target: Any, raw: bytes) -> bytes:
    """The response up to the end of its head; empty if the gateway closes the connection."""
    host, port = target.url.removeprefix("http://").rstrip("/").split(":")
    found = b""
    with socket.create_connection((host, int(port)), timeout=5) as caller:
        try:
            caller.sendall(raw)
            while b"\r\n\r\n" not in found and (more := caller.recv(65536)):
                found += more
        except (ConnectionError, TimeoutError):
            return found
    return found


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/batches", b"/health"])
def test_a_strange_head_affects_no_other_request(target: Any, path: bytes, head: bytes) -> None:
    raw = good(ROUTES[0])
    length = b"" if b"content-length" in head else b"content-length: %d\r\n" % len(raw)
    start = b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n" % (path, KEY)

    status = send_raw(target, start + head + length + b"\r\n" + raw)[9:12]

    assert status in (b"", b"200", b"400", b"404", b"405", b"413", b"431")
    assert target.client.post(ROUTES[0], content=good(ROUTES[0])).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/files/..%2f..%2fkeys%2fgateway",
        b"/v1/files/%2e%2e/content",
        b"/v1/files/file-1%00/content",
        b"/v1/files/%ff%fe",
        b"/v1/batches/' OR 1=1 --".replace(b" ", b"%20"),
        b"/v1/models/%ff",
        b"/v1/models/..%2f..%2fetc",
        b"/v1/files?limit=99999999999999999999999999",
        b"/v1/files?after=%00",
        b"/v1/usage?since=9999-99-99",
        b"/" + b"a" * 10_000,
    ],
)
def test_a_strange_path_is_refused(target: Any, path: bytes) -> None:
    start = b"GET %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n" % (path, KEY)

    assert send_raw(target, start)[9:10] in (b"4", b"2")

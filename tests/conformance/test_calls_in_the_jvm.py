"""Calls in the JVM: the requests, records and dead letters that Python makes of the same records.

One server takes the requests of both targets. What it answers depends on the request's id, which is
the same on both.
"""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import pytest
from call_targets import Branch, on_local, on_native
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from loopback_server import loopback_server
from minicluster import QUIET, FileSink, restore_environment

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.dead_letters import DeadLetter, from_message
from sage_flink.flow import Admission

pytestmark = [pytest.mark.flink, pytest.mark.timeout(240), *QUIET]

DRAWN = settings(
    max_examples=500,
    database=None,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "odd": [1.5, None, {"é": 2**60}]}
MESSAGE = {"role": "assistant", "content": 'an "answer" – \u0001'}
#: What an engine may answer with status 200; the last ones are no chat completions.
REPLIES: list[Any] = [
    {"choices": [{"message": MESSAGE, "finish_reason": "stop"}], "usage": USAGE},
    {"choices": [{"message": MESSAGE, "finish_reason": None}, {"message": {}}], "usage": None},
    {"choices": [{"message": {"content": None}}]},
    {"choices": [{"message": {"content": ""}, "finish_reason": "length"}], "usage": {}},
    {"choices": [{"message": {"content": [{"type": "text"}]}}], "usage": USAGE},
    {"choices": []},
    {"choices": [{"text": "no message"}]},
    {"choices": [{"message": {"role": "assistant"}}]},
    {"choices": {"0": 1}},
    {"object": "list"},
]
HEADERS = ("idempotency-key", "traceparent", "x-session-id", "x-key-group")
blank = " \u3000\x85"
odd = st.sampled_from([None, 5, 1.5, True, b"bytes", [], {}, "", blank, ["x"], {"text": "x"}])
message = st.dictionaries(st.text(max_size=4), st.text() | st.integers(-9, 9))
contents = st.lists(message, max_size=2)
fields = st.fixed_dictionaries(
    {}, optional={"text": st.text() | odd, "title": st.text() | odd, "messages": contents | odd}
)
header = st.text(max_size=5).map(str.encode) | st.sampled_from([b"acme", b"high", b"\xff", b"12"])
headers = st.dictionaries(
    st.sampled_from(["sage-tenant", "sage-priority", "sage-session", "traceparent", "other"]),
    header,
)
times = st.sampled_from([0, -5, 1_700_000_000_000, 2**62, -(2**62)])
keys = st.none() | st.binary(max_size=4)
good = st.fixed_dictionaries(
    {"text": st.text(min_size=1), "title": st.text(), "messages": st.lists(message, min_size=1)}
)
values = good | fields | odd


class Request(NamedTuple):
    headers: dict[str, str]
    body: bytes


class Answered(NamedTuple):
    """What a target made of the records, and the requests that it sent, by their ids."""

    written: dict[str, dict[str, Record]]
    letters: dict[tuple[str, str], DeadLetter]
    requests: dict[str, Request]


def records() -> tuple[Record, ...]:
    """Records of any value, header, key and time; the last ones are deletes."""
    made: list[Record] = []

    @DRAWN
    @given(values, headers, times, keys)
    def collect(value: Any, own: dict[str, bytes], time_ms: int, key: bytes | None) -> None:
        id_ = f"r\u00e9/{len(made)}"
        made.append(Record(id_, value, time_ms, key, own, id_))

    collect()
    return (*made, Record("d", None).delete_of("document", id="d"))


def branches() -> list[Branch]:
    given_ = records()
    admission = Admission("zeta", "low", freshness_s=1.5, slack_s=60)
    plain: dict[str, Any] = {"capacity": 16, "timeout_s": 20, "ordered": True}
    chat = sage.chat(model="listed", tokens_max=5, stop=("\n", "é"), temperature=0.5)
    prompt = 'Say "{text}" {{once}}: {title}\n'
    return [
        Branch("listed", chat, given_, plain | {"admission": admission, "cache_ttl_s": 30}),
        Branch("prompted", sage.chat(model="prompted", prompt=prompt, into="said"), given_, plain),
        Branch("embedded", sage.embed(model="embedded", title="title", dim=2), given_, plain),
    ]


def engine(requests: dict[str, Request]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sent = {name.lower(): value for name, value in self.headers.items()}
            if self.path == "/v1/embeddings":
                reply = embeddings(json.loads(body))
            else:
                id_ = sent["x-request-id"]
                shown = {k: v for k, v in sent.items() if k in HEADERS or k.startswith("x-sage-")}
                requests[id_] = Request(shown, body)
                reply = REPLIES[crc32(id_.encode()) % len(REPLIES)]
            answer = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Log no request."""

    return Handler


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """A vector of each text that tells it from the others."""
    rows = [
        {"object": "embedding", "index": index, "embedding": [crc32(text.encode()) / 2**32, 0.0]}
        for index, text in enumerate(body["input"])
    ]
    return {"object": "list", "data": rows, "usage": {"prompt_tokens": 1, "total_tokens": 1}}


def run(target: Any, folder: Path) -> Answered:
    folder.mkdir()
    requests: dict[str, Request] = {}
    with loopback_server(engine(requests)) as port:
        target(branches(), f"http://127.0.0.1:{port}", folder)
    written = {
        branch.name: {r.id: r for r in FileSink(str(folder / f"{branch.name}.out")).read_records()}
        for branch in branches()
    }
    failed = FileSink(str(folder / "dead-letters")).read_records()
    letters = {(letter.step, letter.id): letter for letter in map(from_message, failed)}
    return Answered(written, letters, requests)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Answered, Answered]]:
    """In process, and on a MiniCluster."""
    environment = restore_environment()
    next(environment)
    folder = tmp_path_factory.mktemp("calls")
    yield run(on_local, folder / "python"), run(on_native, folder / "jvm")
    next(environment, None)


def test_the_jvm_sends_the_requests_that_python_sends(both: tuple[Answered, Answered]) -> None:
    python, jvm = (answered.requests for answered in both)

    assert len(python) > 60
    assert jvm.keys() == python.keys()
    for id_, request in python.items():
        assert json.loads(jvm[id_].body) == json.loads(request.body)
        there, here = (dict(target[id_].headers) for target in (jvm, python))
        # Without a deadline of the record it is the time of the call plus the slack.
        assert there.pop("x-sage-deadline-ms").isdigit()
        assert here.pop("x-sage-deadline-ms").isdigit()
        assert there == here


def test_the_jvm_makes_the_records_that_python_makes_of_the_answers(
    both: tuple[Answered, Answered],
) -> None:
    python, jvm = (answered.written for answered in both)

    assert all(len(found) > 30 for found in python.values())
    assert jvm == python
    assert all("d" in found for found in jvm.values())


def test_the_jvm_refuses_what_python_refuses_for_the_same_reason(
    both: tuple[Answered, Answered],
) -> None:
    python, jvm = (
        {key: without_parser_words(letter.reason) for key, letter in answered.letters.items()}
        for answered in both
    )

    assert len(python) > 100
    assert jvm == python


def without_parser_words(reason: str) -> str:
    """The reason; of an answer that is no chat completion without what is wrong with it."""
    return reason.partition("is not a chat completion")[0]

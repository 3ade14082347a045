"""Records that Flink reads and writes natively: the same ones as in process, each once.

A MiniCluster in this process runs the jobs, the Kafka ones against the stack's broker.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from delete_shapes import SHAPED_LIKE_DELETES
from minicluster import FailOnce, FileSink
from waiting import wait_until

import sage_flink as sage
from sage_connectors import files, kafka
from sage_connectors.kafka_client import delete_topic, drain, feed
from sage_connectors.kafka_connection import client
from sage_flink.common import Record, Rejected, Settings
from sage_flink.common.dead_letters import from_message
from sage_flink.common.records import derived_id
from sage_flink.flow import Admission, FlinkOptions, OpenContext
from sage_flink.flow.lists import ListSource

pytestmark = [
    pytest.mark.flink,
    pytest.mark.timeout(240),
    # Beam, which PyFlink loads, warns of its own age; the class of the warning is pyparsing's.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # PyFlink leaves the pipes and sockets of its JVM to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture(autouse=True)
def restored_environment() -> Iterator[None]:
    """A MiniCluster runs Python steps in this process and marks its environment as a worker's."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


LOCAL = FlinkOptions(target="local", checkpoint_interval_s=0.5)


@dataclass(frozen=True)
class DiscardSink:
    """A sink that discards failed records."""

    def flink_sink(self, jvm: Any, *, transaction_prefix: str) -> Any:
        return jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink()


@dataclass(frozen=True)
class RejectBad:
    """The record itself; a record with the value ``bad`` is rejected."""

    def __call__(self, record: Record) -> Iterable[Record]:
        if record.value == b"bad":
            raise Rejected("it says so")
        yield record


@pytest.fixture(autouse=True)
def no_worker_left() -> Iterator[None]:
    """Waits for the worker threads: they end with an error, which belongs to this test."""
    yield
    wait_until(lambda: not any(map(is_worker, threading.enumerate())), 30, "the workers end")


def is_worker(thread: threading.Thread) -> bool:
    return thread.name == "read_grpc_client_inputs"


def test_flink_reads_the_same_files_as_this_process(folder: Path, tmp_path_factory: Any) -> None:
    source, sink = files(folder), FileSink(str(tmp_path_factory.mktemp("out") / "records"))
    graph = sage.flow.read("in", source).write("out", sink).dead_letters_to(DiscardSink())

    sage.flow.submit(graph, name="conformance-files", options=LOCAL)
    wait_until(lambda: len(sink.read_records()) >= 3, 120, "three records")

    assert sorted(sink.read_records(), key=lambda record: record.id) == list(source.records())


def test_both_targets_read_a_folder_with_odd_names_and_links(tmp_path: Path) -> None:
    folder = tmp_path / "mixed: 100% #1"
    sub = folder / "sub folder"
    sub.mkdir(parents=True)
    good = [
        "Re: plan.md",
        "photo 12:30.md",
        "a b.md",
        "50%25.md",
        "x?y#z.md",
        "größe.md",
        "a\nb.md",
    ]
    for name in [*good, ".hid:den.md", "other:suffix.bin"]:
        (folder / name).write_text(name)
    (sub / "deep.md").write_text("deep")
    (folder / "gone.md").symlink_to("nowhere.md")
    (folder / ".gone.md").symlink_to("nowhere.md")
    (folder / "gone.bin").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    (folder / "self.md").symlink_to("self.md")
    (folder / "twin.md").symlink_to(sub / "deep.md")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.md")).write_text("its name is not UTF-8")
    source, sink = files(folder), FileSink(str(tmp_path / "records"))
    graph = sage.flow.read("in", source).write("out", sink).dead_letters_to(DiscardSink())
    unreadable = {"gone.md", "self.md", "\ufffd.md"}

    sage.flow.submit(graph, name="conformance-odd-files", options=LOCAL)
    wait_until(lambda: len(sink.read_records()) >= len(good) + 4, 120, "all records")

    for records in (list(source.records()), sink.read_records()):
        assert {r.id: r.value for r in records} == {
            **{name: name.encode() for name in good},
            "sub folder/deep.md": b"deep",
            **dict.fromkeys(unreadable),
        }
        assert {r.id for r in records if "unreadable" in r.headers} == unreadable


@dataclass
class SuffixOperator:
    """Appends the name of its step to each value; logs to a file when it is opened and closed."""

    log: str

    def open(self, context: OpenContext) -> None:
        self.suffix = f"/{context.step}"
        self._note(f"open {context.job} {context.step} {context.subtask} of {context.parallelism}")

    def __call__(self, record: Record) -> Any:
        if record.value == "bad/first":
            raise ValueError("it says so")
        return record.value + self.suffix

    def close(self) -> None:
        self._note(f"close {self.suffix}")

    def _note(self, line: str) -> None:
        with Path(self.log).open("a") as file:
            file.write(f"{line}\n")


def test_each_step_opens_and_closes_its_own_operator(tmp_path: Path) -> None:
    log, sink, failed = (str(tmp_path / name) for name in ("log", "out", "failed"))
    records = tuple(Record(value, value, origin=value) for value in ("good", "bad"))
    operator = SuffixOperator(log)
    graph = (
        sage.flow.read("in", ListSource(records))
        .map("first", operator)
        .map("second", operator)
        .write("out", FileSink(sink))
        .dead_letters_to(FileSink(failed))
    )

    sage.flow.submit(graph, name="opened", options=LOCAL)
    wait_until(
        lambda: FileSink(sink).read_records() and FileSink(failed).read_records(),
        120,
        "both records",
    )
    wait_until(lambda: len(Path(log).read_text().splitlines()) == 4, 60, "both are closed")

    assert [record.value for record in FileSink(sink).read_records()] == ["good/first/second"]
    lines = Path(log).read_text().splitlines()
    assert lines[:2] == ["open opened first 0 of 1", "open opened second 0 of 1"]
    assert sorted(lines[2:]) == ["close /first", "close /second"]
    reason = FileSink(failed).read_records()[0].headers["sage.dead-letter.reason"].decode()
    assert reason.startswith("ValueError: it says so (test_flink.py:")


def test_a_source_without_records_ends_and_the_others_are_read_once(tmp_path: Path) -> None:
    out = FailOnce(str(tmp_path / "out"), rows_max=1_000)  # it notes each start, and never fails
    some = ListSource(tuple(Record(f"n/{n}", n, origin=f"n/{n}") for n in range(3)))
    empty = sage.flow.read("empty", ListSource(()))

    graph = sage.flow.union("all", empty, sage.flow.read("some", some)).write("out", out)
    sage.flow.submit(graph.dead_letters_to(DiscardSink()), name="empty", options=LOCAL)
    wait_until(lambda: out.count() >= 3, 60, "three records")
    time.sleep(3)  # a restart would read them again

    assert sorted(record.id for record in out.read_records()) == ["n/0", "n/1", "n/2"]
    assert Path(f"{out.path}.writers").read_text() == "opened\n"


@pytest.fixture
def topics() -> Iterator[tuple[str, str, str]]:
    name = f"conformance-{uuid.uuid4().hex}"
    made = (f"{name}.in", f"{name}.out", f"{name}.dead-letters")
    for topic in made:
        kafka(topic).prepare()
    yield made
    for topic in made:
        delete_topic(topic)


@pytest.mark.service
def test_flink_reads_and_writes_topics_and_dead_letters(topics: tuple[str, str, str]) -> None:
    read, written, dead = topics
    feed(read, [(b"k1", b"one", {"h": b"x"}, 1000), (b"k2", b"bad"), (b"k3", b"three")])
    source = kafka(read, group=read, start="earliest", bounded=True)
    graph = (
        sage.flow.read("in", source)
        .flat_map("good", RejectBad())
        .write("out", kafka(written))
        .dead_letters_to(kafka(dead))
    )

    sage.flow.submit(graph, name=read, options=LOCAL)
    wait_until(lambda: len(list(drain(written))) >= 2, 120, "two records")
    wait_until(lambda: len(list(drain(dead))) >= 1, 30, "the dead letter")

    found = {record.key: record for record in drain(written)}
    assert {key: record.value for key, record in found.items()} == {b"k1": b"one", b"k3": b"three"}
    assert (found[b"k1"].timestamp_ms, found[b"k1"].headers["h"]) == (1000, b"x")
    (message,) = drain(dead)
    letter = from_message(message)
    assert (message.key, message.value) == (b"k2", b"bad")
    assert (letter.id, letter.step, letter.origin) == (f"{read}/0/1", "good", f"{read}/0/1")
    assert letter.record().replace(timestamp_ms=0) == Record(
        f"{read}/0/1", b"bad", key=b"k2", origin=f"{read}/0/1"
    )


@pytest.mark.service
@pytest.mark.parametrize(
    "codec", ["zstd", *(pytest.param(c, marks=pytest.mark.full) for c in ("gzip", "snappy", "lz4"))]
)
def test_topics_of_every_compression_are_read(codec: str) -> None:
    name = f"conformance-{uuid.uuid4().hex}"
    read, written = f"{name}.in", f"{name}.out"
    values = [f"{n} ".encode() * 500 for n in range(20)]
    with client("KafkaAdminClient", "") as admin:
        configs = {"configs": {"compression.type": codec}}  # the broker compresses what it gets
        admin.create_topics({read: configs, written: {}}, wait_for_metadata=True)
    try:
        feed(read, [(b"k", value) for value in values])
        source = kafka(read, start="earliest", bounded=True)
        graph = sage.flow.read("in", source).write("out", kafka(written))
        graph = graph.dead_letters_to(DiscardSink())

        sage.flow.submit(graph, name=name, options=LOCAL)
        wait_until(lambda: drain_values(written) == values, 120, f"all records with {codec}")
    finally:
        for topic in (read, written):
            delete_topic(topic)


def drain_values(topic: str) -> list[object]:
    return [record.value for record in drain(topic)]


@pytest.mark.service
def test_a_record_of_tomorrow_keeps_its_timestamp(topics: tuple[str, str, str]) -> None:
    read, written, dead = topics
    tomorrow_ms = int(time.time() * 1000) + 86_400_000
    record = Record("r", b"value", timestamp_ms=tomorrow_ms)
    graph = (
        sage.flow.read("in", ListSource((record,)))
        .write("out", kafka(written))
        .dead_letters_to(kafka(dead))
    )

    sage.flow.submit(graph, name=read, options=LOCAL)
    wait_until(lambda: list(drain(written)), 120, "the record")

    assert [(r.value, r.timestamp_ms) for r in drain(written)] == [(b"value", tomorrow_ms)]


@pytest.mark.service
def test_a_value_shaped_like_a_delete_is_a_message_of_a_topic(topics: tuple[str, str, str]) -> None:
    read, written, dead = topics
    values = [json.dumps(shape).encode() for shape in SHAPED_LIKE_DELETES]
    feed(read, [(f"k{n}".encode(), value) for n, value in enumerate(values)])
    source = kafka(read, group=read, start="earliest", bounded=True)
    graph = sage.flow.read("in", source).write("out", kafka(written)).dead_letters_to(kafka(dead))

    sage.flow.submit(graph, name=read, options=LOCAL)
    wait_until(lambda: len(list(drain(written))) >= len(values), 120, "all messages")

    assert [record.value for record in drain(written)] == values


@dataclass(frozen=True)
class EchoCall:
    """Sends the record's value, which returns in upper case; an empty value sends no request."""

    mode: Literal["post", "embed"] = "post"
    model: str = "m"
    path: str = "/v1/chat/completions"

    def request(self, record: Record) -> bytes:
        value: bytes = record.value
        return json.dumps({"text": value.decode()}).encode() if value else b""

    def answer(self, record: Record, body: bytes) -> Record:
        return record.replace(value=json.loads(body)["text"].upper().encode())


@contextmanager
def gateway(received: list[dict[str, str]], status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log no request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_call_spreads_over_gateways_and_sends_tenant_and_request_id(tmp_path: Path) -> None:
    records = [
        Record("a", b"one", origin="a", headers={"sage-priority": b"high"}),
        Record("b", b"", origin="b"),
        Record("c", b"late", origin="c", headers={"sage-deadline-ms": b"1"}),
        *(Record(f"d{n}", b"more", origin=f"d{n}") for n in range(20)),
    ]
    received: list[dict[str, str]] = []
    refused: list[dict[str, str]] = []
    sink = FileSink(str(tmp_path / "records"))
    graph = (
        sage.flow.read("in", ListSource(tuple(records)))
        .call(
            "ask",
            EchoCall(),
            capacity=8,
            timeout_s=20,
            admission=Admission(tenant="t1", slack_s=60),
        )
        .write("out", sink)
        .dead_letters_to(DiscardSink())
    )

    with gateway(received) as healthy, gateway(refused, 503) as failing:
        settings = Settings(gateway_url=f"{healthy},{failing}")
        sage.flow.submit(graph, name="native-call", options=LOCAL, settings=settings)
        wait_until(lambda: len(sink.read_records()) >= 22, 120, "all but the overdue record")

    values = {record.id: record.value for record in sink.read_records()}
    expected = {"a": b"ONE", "b": b"", **{f"d{n}": b"MORE" for n in range(20)}}
    assert values == expected
    assert len(received) == 21
    assert 1 <= len(refused) <= 12
    first = next(request for request in received if request["x-sage-priority"] == "high")
    expected_id = derived_id("a", "native-call/ask", 0)
    assert (first["x-request-id"], first["idempotency-key"]) == (expected_id, expected_id)
    assert first["x-sage-tenant"] == "t1"
    assert first["traceparent"].startswith(f"00-{expected_id}-")
    assert int(first["x-sage-deadline-ms"]) > 0
    assert {request["x-sage-attempt"] for request in received} <= {"1", "2"}

"""JSON in the JVM: the records, messages and dead letters that Python makes of the same."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from format_vectors import VECTORS, without_parser_words
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from minicluster import QUIET, FileSink
from waiting import wait_until

import sage_flink as sage
from sage_connectors import Json
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message
from sage_flink.flow import FlinkOptions, Graph
from sage_flink.flow.formats import Encode
from sage_flink.flow.lists import ListSource

pytestmark = QUIET

DRAWN = settings(
    max_examples=600,
    database=None,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
numbers = st.integers() | st.integers(-(2**65), 2**65) | st.floats()
trees = st.recursive(
    st.none() | st.booleans() | numbers | st.text() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
texts = trees.map(lambda tree: json.dumps(tree).encode()) | trees.map(
    lambda tree: json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")
)
#: Where decoders differ: numbers at the limits, escapes, encodings, names twice, depth, rubbish.
ODD = [
    *(b"-0", b"0.0", b"-0.0", b"1e5", b"1E-5", b"1e400", b"-1e400", b"5e-324", b"1e-400", b"01"),
    *(b"9223372036854775807", b"9223372036854775808", b"18446744073709551615"),
    *(b"18446744073709551616", b"-9223372036854775808", b"-9223372036854775809"),
    *(b"0.1", b"123456789.123456789123456789", b"1.7976931348623157e308", b"2.5", b"1.", b".5"),
    *(b'"\\ud83d\\ude00"', b'"\\ud83d"', b'"\\ude00\\ud83d"', b'"\\u0000"', b'"\x00"', b'"\n"'),
    *(b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\xbd\xed\xb8\x80"', b"\xef\xbb\xbf[1]", b"\xef\xbb\xbf"),
    *('{"a": 1}'.encode("utf-16"), '{"a": 1}'.encode("utf-16-be"), '"é"'.encode("latin-1")),
    *('"�"'.encode(), '{"�": [1.5, null]}'.encode()),
    *(b'{"a": 1, "b": 2, "a": 3}', b'{"": {"": []}}', b"NaN", b"Infinity", b"nul", b"true"),
    *(b"[1, 2", b"[1] [2]", b"[1],", b"", b" ", b"{'a': 1}", b"[1,]", b"/* c */ 1", b"null"),
    *(b"[" * depth + b"]" * depth for depth in (99, 100, 101, 500)),
    *(b'{"a":' * depth + b"1" + b"}" * depth for depth in (99, 100, 101)),
    b"1" * 2_000,
    b'"' + b"x" * 200_000 + b'"',
]


def messages() -> tuple[Record, ...]:
    made = [vector.value for _, vectors in VECTORS.values() for vector in vectors]
    made += ODD

    @DRAWN
    @given(texts)
    def collect(text: bytes) -> None:
        made.append(text)

    collect()
    return tuple(
        Record(f"m/0/{n}", value, 5, b"k", {"h": b"1"}, f"m/0/{n}") for n, value in enumerate(made)
    )


@dataclass(frozen=True)
class MessageSink(FileSink):
    """A sink of messages; a delete is one of them."""

    supports_deletes: ClassVar[bool] = True


keys = st.text(max_size=3) | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=3)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)


def records() -> tuple[Record, ...]:
    """Upserts of any value, some without a key; and deletes, one of them of a version."""
    made: list[Record] = []

    @DRAWN
    @given(values)
    def collect(value: Any) -> None:
        key = b"k" if len(made) % 2 else None
        made.append(Record(f"r/0/{len(made)}", value, 5, key, {"h": b"1"}, f"r/0/{len(made)}"))

    collect()
    whole = Record("whole", None).delete_of("doc", id="d")
    return (*made, whole, whole.replace(id="versions", version="v2"))


def encoding(out: Any, failed: Any) -> Graph:
    """Messages decoded, and records encoded, without Python in between."""
    read = sage.flow.read("in", ListSource(messages(), Json())).deduplicate("once", within_s=60)
    encode = sage.flow.read("records", ListSource(records()))
    encoded = encode.flat_map("encode", Encode(Json(), "topic"))
    both = sage.flow.union("both", read, encoded)
    return both.write("out", out).dead_letters_to(failed)


def same(record: Record) -> tuple[Any, ...]:
    """What must be equal on both sides; of a message in JSON the value that it says."""
    value = record.value
    if record.origin.startswith("r/") and value is not None:
        value = json.loads(value)
    return (repr(value), *(getattr(record, name) for name in ("id", "timestamp_ms", "key")))


@pytest.mark.flink
@pytest.mark.timeout(240)
def test_the_jvm_decodes_and_encodes_json_as_python_does(tmp_path: Path, minicluster: None) -> None:
    out, failed = MessageSink(str(tmp_path / "out")), FileSink(str(tmp_path / "failed"))
    graph = encoding(out, failed)
    outcome = asyncio.run(sage.flow.run(graph, sinks={"out": out}))
    here = outcome.written["out"]
    Path(out.path).unlink()

    options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
    sage.flow.submit(graph, name="json", options=options)
    count = len(here) + len(outcome.failed)
    wait_until(lambda: out.count() + failed.count() >= count, 120, "all records")

    letters = [from_message(record) for record in failed.read_records()]
    assert len(letters) > 80
    assert {
        (letter.id, letter.step, without_parser_words(letter.reason)) for letter in letters
    } == {
        (failed.id, failed.step, without_parser_words(failed.reason)) for failed in outcome.failed
    }
    there = {record.id: record for record in out.read_records()}
    assert len(there) == len(here) == out.count() > 800
    assert [r for r in here if same(there[r.id]) != same(r)] == []

"""The fallback's guards against PyFlink's async operator, and a job without the native jar."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from minicluster import QUIET

import sage_flink as sage
from benchmark_sage.mock_engine import mock_engine
from sage_flink.common import ConfigError, Record, Settings, encode
from sage_flink.flow import Call, FlinkOptions
from sage_flink.inference import Chat

pytestmark = [pytest.mark.flink, pytest.mark.timeout(240), *QUIET]
TESTS = Path(__file__).resolve().parents[1]


class Raising(Chat):
    """A chat whose request raises what the record names."""

    def request(self, record: Record) -> bytes:
        raise {"cancelled": asyncio.CancelledError, "exit": SystemExit}[record.value]


@pytest.mark.parametrize("value", ["cancelled", "exit"])
async def test_nothing_but_one_outcome_leaves_the_function(value: str) -> None:
    from sage_flink.flow.flink.async_fallback import Calls, Outcome

    node = Call("ask", "in", Raising("m"), capacity=1, timeout_s=1)

    (made,) = await Calls(node, "job", ("http://127.0.0.1:9",)).async_invoke(
        encode(Record("r", value))
    )

    failed = msgspec.msgpack.decode(made, type=Outcome).failed
    assert failed is not None
    assert (failed.id, failed.step, failed.payload) == ("r", "ask", json.dumps(value))
    assert failed.reason.startswith("the call broke: ")


async def test_bytes_that_are_no_record_are_an_outcome_too() -> None:
    from sage_flink.flow.flink.async_fallback import Calls, Outcome

    node = Call("ask", "in", sage.chat(model="m"), capacity=1, timeout_s=1)

    (made,) = await Calls(node, "job", ("http://127.0.0.1:9",)).async_invoke(b"\xc1")

    failed = msgspec.msgpack.decode(made, type=Outcome).failed
    assert failed is not None
    assert failed.reason.startswith("the call broke: DecodeError")


def test_only_the_python_calls_do_without_the_jar(tmp_path: Path) -> None:
    from sage_flink.platform.cluster import environment

    settings = Settings(home=tmp_path)

    with pytest.raises(ConfigError, match=r"native operators are missing.*calls='python'"):
        environment(FlinkOptions(target="local"), settings)
    with pytest.raises(ConfigError, match="calls must be 'native' or 'python', got 'java'"):
        FlinkOptions(calls="java")  # type: ignore[arg-type]


WITHOUT_JAR = """
import sys
from pathlib import Path

import sage_flink as sage
from call_targets import Branch, on_flink
from minicluster import Appended
from sage_connectors import kafka
from sage_flink.common import ConfigError, Record, Settings
from sage_flink.flow import FlinkOptions
from sage_flink.flow.lists import ListSource

url, folder = sys.argv[1], Path(sys.argv[2])
settings = Settings(home=folder, gateway_url=url)
options = FlinkOptions(target="local", calls="python", restarts_max=0)
texts = ["one", "[[400]] two", "three"]
records = tuple(Record(text, {"text": text}) for text in texts)
call = {"capacity": 4, "timeout_s": 30.0}
read = sage.flow.read("topic", kafka("documents", servers="127.0.0.1:9"))
graph = read.write("out", Appended(str(folder / "none"))).dead_letters_to(Appended("none"))
try:
    sage.flow.submit(graph, name="kafka", options=options, settings=settings)
except ConfigError as error:
    print(error)
on_flink([Branch("m", sage.embed(model="m"), records, call)], url, folder, options, settings)
print(sorted(record.id for record in Appended(str(folder / "m.out")).held()))
print([record.id for record in Appended(str(folder / "dead-letters")).held()])
"""


def test_a_job_without_the_jar_is_correct_and_kafka_is_refused(tmp_path: Path) -> None:
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])

    with mock_engine() as engine:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_JAR, engine.url, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    refused, written, letters = done.stdout.splitlines()[-3:]
    assert refused.startswith("step 'topic': needs the native operators, which are missing (Kafka")
    assert written == "['one', 'three']"
    assert letters == "['[[400]] two']"
    assert "no native jar, so batches of one record" in done.stderr

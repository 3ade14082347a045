"""Names of the operators in Flink's web UI: the author's, while state follows their uids."""

import json
import subprocess
import sys

import pytest

# In a process of its own, as PyFlink leaves its JVM's pipes and sockets to the garbage collector.
PLAN = """
import json
import sage_flink as sage
from pyflink.java_gateway import get_gateway
from sage_flink.common import Settings
from sage_flink.flow.flink.compile import compile_graph
from sage_flink.flow.flink.savepoint_state import stateful_uids
from sage_flink.operators import chunk
from sage_flink.platform.cluster import FlinkOptions, environment
from sage_flink.testing import ListSink, ListSource

texts = sage.flow.read("texts", ListSource([]))
vectors = (
    texts.flat_map("split", chunk(tokens_max=20, overlap=2))
    .call("embed", sage.embed(model="m"), capacity=4, timeout_s=5)
    .write("vectors", ListSink())
)
times = [texts.event_time(name, out_of_order_s=1) for name in ("orders", "payments")]
pairs = times[0].join("paid", times[1], within_s=(0, 1)).write("pairs", ListSink())
rows = texts.broadcast_join("rollout", times[0]).write("rows", ListSink())
versions = times[0].temporal_join("rated", times[1]).write("versions", ListSink())
graph = sage.flow.pipeline(vectors, pairs, rows, versions)
settings = Settings.load()
options = FlinkOptions(target="local")
env = environment(options, settings)
compile_graph(graph, env, options, job="names", settings=settings)
plan = env._generate_stream_graph(clear_transformations=True, job_name="names")
print(json.dumps(sorted(stateful_uids(get_gateway().jvm, plan))))
nodes = get_gateway().jvm.java.util.ArrayList(plan.getStreamNodes())
print(json.dumps([[node.getTransformationUID(), node.getOperatorName()] for node in nodes]))
"""


@pytest.mark.flink
@pytest.mark.timeout(180)
def test_flink_shows_the_authors_names_and_finds_state_by_the_same_uids_as_before():
    command = [sys.executable, "-W", "ignore", "-c", PLAN]

    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    stateful, named = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    names = dict(named)

    expected = {
        "texts.tally": "Count",
        "split": "split",
        "embed.request": "embed: Request",
        "embed.request.tally": "Count",
        "embed": "embed",
        "embed.answer": "embed: Answer",
        "embed.tally": "Count",
        "paid.left-input": "paid: Left-input",
        "paid.right-input": "paid: Right-input",
        "paid": "paid",
        "paid.late": "paid: Late",
        "rated.right-input": "rated: Right-input",
        "rated": "rated",
        "rollout.right-input": "rollout: Right-input",
        "rollout": "rollout",
    }
    assert expected.items() <= names.items()
    assert not any("." in name for name in names.values()), names
    assert {"paid", "rated", "rollout", "rollout.right-input"} <= {*stateful}
    assert not {"paid.left-input", "rated.right-input"} & {*stateful}

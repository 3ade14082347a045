"""Options of single steps in Flink's plan: subtasks, key groups and slots of their operators."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.flink, pytest.mark.timeout(240)]

# In a process of its own, as PyFlink leaves its JVM's pipes and sockets to the garbage collector.
PLAN = """
import json
import sage_flink as sage
from pyflink.java_gateway import get_gateway
from sage_flink.common import Settings
from sage_flink.flow.flink.compile import compile_graph
from sage_flink.operators import chunk
from sage_flink.platform.cluster import FlinkOptions, StepOptions, environment
from sage_flink.testing import ListSink, ListSource

read = sage.flow.read("texts", ListSource([]))
chunks = read.flat_map("split", chunk(tokens_max=20, overlap=2))
called = chunks.call("embed", sage.embed(model="m"), capacity=4, timeout_s=5)
graph = called.deduplicate("once", within_s=60).write("rows", ListSink())
steps = {
    "embed": StepOptions(parallelism=4, slot_sharing_group="engines"),
    "once": StepOptions(max_parallelism=16),
}
settings = Settings.load()
options = FlinkOptions(target="local", parallelism=2, steps=steps)
env = environment(options, settings)
compile_graph(graph, env, options, job="steps", settings=settings)
plan = env._generate_stream_graph(clear_transformations=True, job_name="steps")
nodes = get_gateway().jvm.java.util.ArrayList(plan.getStreamNodes())
print(json.dumps({
    node.getTransformationUID(): [
        node.getParallelism(), node.getMaxParallelism(), node.getSlotSharingGroup()
    ]
    for node in nodes
}))
"""


def test_every_operator_of_a_step_has_its_options():
    command = [sys.executable, "-W", "ignore", "-c", PLAN]

    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    nodes = json.loads(done.stdout.splitlines()[-1])

    own = {uid: node for uid, node in nodes.items() if uid and uid.split(".")[0] == "embed"}
    assert {"embed.request", "embed", "embed.tally"} <= own.keys()
    assert {tuple(node) for node in own.values()} == {(4, -1, "engines")}
    assert nodes["once"] == [2, 16, "default"]
    # Split is not in the operator of the request, and no step takes the slots of the one before.
    assert nodes["split"] == nodes["rows"] == nodes["rows.batch"] == [2, -1, "default"]

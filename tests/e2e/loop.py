"""A job in its own file: tasks that come back through their topic until they are ready."""

import time
from typing import Any

import sage_flink as sage
from sage_connectors import kafka
from sage_connectors.formats import Fields, Json
from sage_flink.common import Record
from sage_flink.flow import FlinkOptions, Graph
from sage_flink.operators import HopLimit
from sage_jobs.entry import report_errors, run

PASSES, HOPS_MAX = 4, 5


def build(name: str) -> Graph:
    tasks = kafka(f"{name}.tasks", group=name, format=Json(Fields(id="$.task")))
    read = sage.flow.read("tasks", tasks).flat_map("hops", HopLimit(HOPS_MAX))
    made = read.map("work", work)
    ways = made.split("ready", {"yes": is_ready}, rest="no")
    results = ways["yes"].write("results", kafka(f"{name}.results", format=Json()))
    again = ways["no"].write("again", tasks)
    return sage.flow.pipeline(results, again).dead_letters_to(kafka(f"{name}.failed"))


def work(record: Record) -> dict[str, Any]:
    time.sleep(0.01)  # the savepoint comes midway
    return record.value | {"passes": record.value["passes"] + 1}


def is_ready(record: Record) -> bool:
    return record.value["passes"] >= PASSES and not record.value["endless"]


def main(name: str = "loop", options: FlinkOptions | None = None) -> None:
    """Submit the job."""
    print(sage.flow.submit(build(name), name=name, options=options))


if __name__ == "__main__":
    with report_errors("loop"):
        run(main)

"""The wheel, installed into an empty environment at a path with a blank in it.

The checkout is not on the import path there: the jar and the data files are those of the wheel.
"""

import json
import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
from waiting import wait_until

import sage_flink as sage
from sage_connectors.kafka_client import delete_topic, feed
from sage_flink.common import Settings, sage_home
from sage_flink.common.settings import sage_cache
from sage_flink.platform.flink_rest import FlinkRest

pytestmark = [pytest.mark.service, pytest.mark.flink, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
JOB = "package"
TOPICS = (f"{JOB}.documents", f"{JOB}.dead-letters")
#: The README's pipeline under a name of its own, and the line that submits it.
PIPELINE, SUBMIT = (
    re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    .replace("readme", JOB)
    .split("sage.flow.submit", 1)
)

IN_PROCESS = (
    PIPELINE
    + """
import asyncio, json
from sage_flink.testing import EchoPool, ListSink, ListSource

text = "A checkpoint is a consistent picture of all state. " * 100
documents = [
    sage.Record(id=f"d{n}", value=json.dumps({"id": f"d{n}", "text": text}).encode())
    for n in range(3)
]
sources, sinks = {"documents": ListSource(tuple(documents))}, {"vectors": ListSink()}
running = sage.flow.run(pipeline, pool=EchoPool(), sources=sources, sinks=sinks)
written = asyncio.run(running).written["vectors"]
print(json.dumps([sage.__file__, sorted({row.value["doc"] for row in written})]))
"""
)


def run_uv(*words):
    uv = shutil.which("uv") or sage_cache() / "uv" / "bin" / "uv"
    subprocess.run([uv, *words, "--quiet"], check=True, cwd=ROOT, timeout=200)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run_uv("build", "--wheel", "--out-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """``python(code)``: the last line of what ``code`` prints in the empty environment."""
    place = tmp_path_factory.mktemp("an empty place")
    interpreter = place / "venv" / "bin" / "python"
    run_uv("venv", place / "venv")
    pins = ROOT / "infra" / "constraints.txt"
    needs = f"{wheel}[flink,milvus,kafka]"
    run_uv("pip", "install", "--python", interpreter, "--constraint", pins, needs)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(code):
        done = subprocess.run(
            [interpreter, "-c", code],
            env={**clean, "SAGE_HOME": str(sage_home())},
            cwd=place,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    yield run
    shutil.rmtree(place)


def test_the_wheel_carries_the_native_operators_and_every_file_of_its_packages(wheel):
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    expected = {"sage_flink/platform/sage-native.jar"}
    for package in map(Path, build["targets"]["wheel"]["packages"]):
        listed = ["git", "ls-files", package.name]
        files = subprocess.run(listed, cwd=ROOT / package.parent, capture_output=True, text=True)
        expected.update(files.stdout.split())

    assert expected <= set(zipfile.ZipFile(wheel).namelist())
    assert len(expected) > 300


def test_the_readmes_pipeline_runs_in_process(python):
    package, documents = json.loads(python(IN_PROCESS))

    assert "an empty place" in package
    assert documents == ["d0", "d1", "d2"]


def test_the_readmes_pipeline_runs_on_the_cluster(python):
    store = sage.db.collection(JOB, dim=384).open()
    store.drop()
    text = "A checkpoint is a consistent picture of all state. " * 100

    job_id = python(f"{PIPELINE}job_id = sage.flow.submit{SUBMIT}print(job_id)")
    with FlinkRest(Settings.load().flink_url) as rest:
        try:
            feed(TOPICS[0], [(b"d", json.dumps({"id": "d", "text": text}).encode())])
            wait_until(lambda: store.count() > 1, 120, "the document's chunks are in Milvus")
        finally:
            rest.cancel(job_id)
    store.drop()
    for topic in TOPICS:
        delete_topic(topic)

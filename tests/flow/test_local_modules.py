"""Code beside the author's script travels with a job; installed packages are sent by their name."""

import importlib
import subprocess
import sys
import uuid
from pathlib import Path

import cloudpickle
import pytest
from waiting import wait_until

import sage_flink as sage
from sage_connectors import kafka
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic
from sage_flink.common import Record, Settings
from sage_flink.flow.flink.local_modules import local_modules, missing_at_worker, sent_by_value
from sage_flink.flow.lists import ListSource
from sage_flink.platform.flink_rest import FlinkRest

HELPERS = "FACTOR = 2\n\n\ndef double(record):\n    return str(record.value * FACTOR).encode()\n"
RUN = "import pickle, sys; print(pickle.load(sys.stdin.buffer)(sys.argv[1]))"


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module beside the author's script, which no worker can import."""
    name = f"helpers_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(
        HELPERS + "\n\ndef shout(text):\n    return text.upper()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(name)
    del sys.modules[name]


def run_elsewhere(pickled: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-I", "-c", RUN, "hello"], input=pickled, capture_output=True, check=False
    )


def test_a_function_of_a_local_module_runs_where_the_module_is_not(helpers) -> None:
    with sent_by_value():
        pickled = cloudpickle.dumps(helpers.shout)

    assert run_elsewhere(pickled).stdout == b"HELLO\n"
    assert b"ModuleNotFoundError" in run_elsewhere(cloudpickle.dumps(helpers.shout)).stderr


def test_installed_packages_and_the_standard_library_are_not_sent(helpers) -> None:
    missing = missing_at_worker(local_modules())

    assert helpers.__name__ in missing
    assert not {"sage_flink", "sage_connectors", "json", "pytest", "cloudpickle"} & set(missing)


def test_what_the_author_registered_stays_registered(helpers) -> None:
    cloudpickle.register_pickle_by_value(helpers)

    with sent_by_value():
        pass

    assert helpers.__name__ in cloudpickle.list_registry_pickle_by_value()
    cloudpickle.unregister_pickle_by_value(helpers)


@pytest.mark.service
@pytest.mark.flink
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_job_with_a_function_of_a_local_module_runs_on_the_cluster(helpers) -> None:
    topic = f"local-modules-{uuid.uuid4().hex}"
    ensure_topic(topic)
    ensure_topic(f"{topic}.failed")
    given = ListSource(tuple(Record(f"r{n}", n, origin=f"r{n}") for n in range(5)))
    doubled = sage.flow.read("in", given).map("double", helpers.double).write("out", kafka(topic))
    pipeline = doubled.dead_letters_to(kafka(f"{topic}.failed"))
    with FlinkRest(Settings.load().flink_url) as rest:
        job = sage.flow.submit(pipeline, name=topic)
        try:
            wait_until(lambda: len(list(drain(topic))) == 5, 120, "five records")
            assert {record.value for record in drain(topic)} == {b"0", b"2", b"4", b"6", b"8"}
        finally:
            rest.cancel(job)
            delete_topic(topic)
            delete_topic(f"{topic}.failed")

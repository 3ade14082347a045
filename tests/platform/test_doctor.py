"""``sage doctor``: checks as functions of facts, and the command on this machine."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sage_flink.common.settings import Settings
from sage_flink.platform.doctor import examination
from sage_flink.platform.doctor.connections import (
    ConnectionFacts,
    check_connections,
    read_connections,
)
from sage_flink.platform.doctor.jobs import JobFacts, check_jobs
from sage_flink.platform.doctor.machine import Disk, MachineFacts, check_machine, read_machine
from sage_flink.platform.doctor.servers import Listener, StackFacts, check_stack, read_stack
from sage_flink.platform.doctor.versions import (
    PROGRAMS,
    VersionFacts,
    check_versions,
    read_packages,
    read_versions,
)
from sage_flink.platform.flink_rest import FlinkJob
from sage_flink.platform.job_failures import JobFailure
from sage_flink.platform.stack.ports import DEFAULT_PORTS
from sage_flink.platform.stack.servers import SERVERS
from sage_flink.platform.stack.status import ServerStatus

HOME = Path("/h")
DISK = Disk("SAGE_HOME", HOME, HOME, free_mib=90_000, is_writable=True)
MACHINE = MachineFacts(
    cores=4,
    memory_mib=16_000,
    memory_free_mib=9_000,
    disks=(DISK,),
    open_files=65_536,
    encoding="UTF-8",
    now_s=2_000_000,
    newest_file=HOME / "stack.json",
    newest_file_s=1_999_000,
)
VERSIONS = VersionFacts(
    sage="0.1.0",
    python="3.11.9",
    java="17.0.11",
    has_stack=True,
    missing=(),
    environments={"flink": 180, "gateway": 60},
    unlike={},
)


def levels(checks):
    return {check.name: check.level for check in checks}


def test_a_good_machine_passes_every_check():
    assert set(levels(check_machine(MACHINE)).values()) == {"ok"}


@pytest.mark.parametrize(
    ("facts", "name", "level", "words"),
    [
        ({"cores": 1}, "cores", "warning", "at least 2"),
        ({"memory_mib": 2000}, "memory", "warning", "sage up kafka flink"),
        ({"disks": (replace(DISK, free_mib=100),)}, "SAGE_HOME", "fault", "free disk space"),
        ({"disks": (replace(DISK, free_mib=3000),)}, "SAGE_HOME", "warning", "larger disk"),
        ({"disks": (replace(DISK, is_writable=False),)}, "SAGE_HOME", "fault", "set SAGE_HOME"),
        ({"open_files": 1024}, "open files", "warning", "ulimit -Hn"),
        ({"encoding": "ISO-8859-1"}, "locale", "warning", "LC_ALL=C.UTF-8"),
        ({"newest_file_s": 2_086_400}, "clock", "warning", "NTP"),
    ],
)
def test_a_lack_of_the_machine_comes_with_the_next_step(facts, name, level, words):
    (check,) = (c for c in check_machine(replace(MACHINE, **facts)) if c.level != "ok")

    assert (check.name, check.level) == (name, level)
    assert words in check.next_step


def test_a_file_of_tomorrow_shows_that_the_clock_is_behind(tmp_path):
    (tmp_path / "stack.json").touch()
    os.utime(tmp_path / "stack.json", (time.time() + 86_400,) * 2)

    (clock,) = (c for c in check_machine(read_machine(tmp_path, tmp_path)) if c.name == "clock")

    assert clock.level == "warning"
    assert "stack.json is 24.0 h newer" in clock.finding


def test_a_folder_that_does_not_exist_yet_is_judged_by_its_nearest_parent(tmp_path):
    disk = read_machine(tmp_path / "a" / "b", tmp_path).disks[0]

    assert (disk.parent, disk.is_writable) == (tmp_path, True)


def test_a_complete_installation_passes_every_check():
    assert set(levels(check_versions(VERSIONS)).values()) == {"ok"}


@pytest.mark.parametrize(
    ("facts", "name", "level"),
    [
        ({"java": ""}, "java", "fault"),
        ({"java": "1.8.0_402"}, "java", "fault"),
        ({"missing": ("kafka",)}, "programs", "fault"),
        ({"environments": {"flink": 180}}, "venv/gateway", "fault"),
        ({"unlike": {"flink": ("httpx 1 instead of 2",)}}, "venv/flink", "warning"),
        ({"has_stack": False}, "local stack", "warning"),
    ],
)
def test_a_lack_of_the_installation_is_found(facts, name, level):
    found = levels(check_versions(replace(VERSIONS, **facts)))

    assert {check: state for check, state in found.items() if state != "ok"} == {name: level}


def test_installed_packages_are_compared_with_their_pins(tmp_path):
    packages = tmp_path / "venv/flink/lib/python3.11/site-packages"
    for name in ("PyYAML-6.0.1", "rich-14.0.0", "sage_flink-0.1.0"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
    pins = tmp_path / "constraints.txt"
    pins.write_text("pyyaml==6.0.3\nrich==14.0.0\n")

    facts = read_versions(tmp_path, pins)

    assert facts.unlike["flink"] == ("pyyaml 6.0.1 instead of 6.0.3",)
    assert facts.missing == tuple(PROGRAMS)


def test_this_environment_is_read_with_its_versions():
    assert read_packages(Path(sys.prefix))["pytest"] == pytest.__version__


def server(name, state="ready", uptime_s=60.0):
    return ServerStatus(name, state, 7, (), "http://x", 1.0, uptime_s, HOME / "log", "")


def test_a_stack_that_does_not_run_is_a_warning_and_its_ports_are_looked_at():
    stopped = tuple(server(name, "stopped") for name in SERVERS)
    taken = {9092: Listener("java (pid 1, user ann)", is_ours=False)}

    found = {c.name: c for c in check_stack(StackFacts(stopped, DEFAULT_PORTS, taken))}

    assert found["servers"].next_step == "run `sage up`"
    assert found["kafka"].finding == "9092 is taken by java (pid 1, user ann)"
    assert "takes 9192" in found["kafka"].next_step


@pytest.mark.parametrize(
    ("state", "uptime_s", "level"),
    [
        ("ready", 60, "ok"),
        ("starting", 5, "warning"),
        ("starting", 500, "fault"),
        ("restarting", 0, "fault"),
        ("failed", 0, "fault"),
        ("stopped", 0, "warning"),
    ],
)
def test_a_server_of_a_running_stack_is_judged_by_its_state(state, uptime_s, level):
    servers = (server("kafka", state, uptime_s), server("milvus"))

    assert levels(check_stack(StackFacts(servers, {}, {})))["kafka"] == level


def test_the_program_on_a_port_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listener = read_stack(tmp_path).listeners[listening.getsockname()[1]]

    assert f"pid {os.getpid()}" in listener.program
    assert not listener.is_ours


def test_connections_that_are_refused_name_the_setting_and_no_password(tmp_path):
    settings = Settings(
        kafka_servers="127.0.0.1:1",
        flink_url="http://me:hunter2@127.0.0.1:1",
        milvus_url="http://127.0.0.1:1",
        influxdb_url="not a url",
        gateway_url="http://127.0.0.1:1,http://127.0.0.1:2",
        home=tmp_path,
    )

    found = read_connections(settings)
    checks = list(check_connections(found))

    assert [c.name for c in checks] == ["kafka", "flink", "milvus", "influxdb", *["gateway"] * 2]
    assert [c.level for c in checks] == [*["warning"] * 3, "fault", *["warning"] * 2]
    assert "SAGE_FLINK_URL" in checks[1].next_step
    assert "hunter2" not in str(checks)


def test_a_server_elsewhere_that_does_not_answer_is_a_fault_and_one_of_this_machine_a_warning():
    away = [
        ConnectionFacts("flink", "http://127.0.0.1:8081", error="refused"),
        ConnectionFacts("kafka", "kafka.example.org:9092", error="timed out"),
    ]

    found = levels(check_connections(away))

    assert found == {"flink": "warning", "kafka": "fault"}


def test_another_clock_than_the_server_s_is_a_warning():
    checks = list(check_connections([ConnectionFacts("flink", "http://f", "2.3", clock_off_s=-90)]))

    assert [c.level for c in checks] == ["ok", "warning"]
    assert checks[1].finding == "its clock is 90 s behind this machine's"


def job(state, failures=0):
    failure = JobFailure(1, "split", "a.B: no disk", failures) if failures else None
    return JobFacts(FlinkJob("id", "mine", state, 1, 1000), failure, failures)


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        (job("RUNNING"), "ok"),
        (job("RUNNING", 1), "warning"),
        (job("RUNNING", 3), "fault"),
        (job("RESTARTING", 9), "fault"),
        (job("FAILED", 1), "fault"),
    ],
)
def test_a_job_that_restarts_again_and_again_is_a_fault_with_its_reason(facts, level):
    (check,) = check_jobs([facts])

    assert check.level == level
    assert level == "ok" or "step split: a.B: no disk" in check.finding


def test_a_failed_run_is_no_fault_once_the_job_runs_again():
    assert levels(check_jobs([job("RUNNING"), job("FAILED", 1)])) == {"mine": "ok"}


def test_an_area_that_hangs_or_breaks_is_a_finding(monkeypatch):
    monkeypatch.setattr(examination, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(examination, "read_stack", lambda _: time.sleep(2))
    monkeypatch.setattr(examination, "read_versions", lambda *_: 1 / 0)

    found = {check.area: check for check in examination.examine()}

    assert found["stack"].finding.startswith("no answer in")
    assert "ZeroDivisionError" in found["versions"].finding


@pytest.mark.parametrize("home", ["/proc/sage", "a:b"])
def test_the_command_needs_no_stack_no_home_and_no_unicode_and_shows_no_traceback(tmp_path, home):
    environment = {
        "PATH": os.environ["PATH"],
        "SAGE_HOME": str(tmp_path / home),
        # An ASCII locale, which Python would otherwise replace by UTF-8.
        **{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    }
    command = [sys.executable, "-c", "from sage_flink.cli import main; main()", "doctor", "--json"]

    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=30, check=False
    )

    checks = json.loads(done.stdout)
    assert done.stderr == ""
    assert done.returncode == any(check["level"] == "fault" for check in checks)
    assert {check["area"] for check in checks} >= {"machine", "versions", "connections"}
    assert all(check["next_step"] for check in checks if check["level"] != "ok")

"""A gateway is killed, and the next one adopts its engines."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from redis_server import free_port
from waiting import has_ended, wait_until

from sage_gateway.controlplane.engine_state import (
    EngineRecord,
    EngineStateStore,
    WantedState,
    created_s,
    digest,
)

pytestmark = pytest.mark.processes

KEY = "sk-sage-test"
GRACE_S = 40.0  # on a loaded machine the start of a gateway is slow
POOL = {"talk": {"engine": "fake", "kind": "chat", "replicas": 2}}


@dataclass
class GatewayProcess:
    """The command ``sage-gateway`` on one port, which can be started repeatedly."""

    home: Path
    port: int = field(default_factory=free_port)
    grace_s: float = GRACE_S
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, models: dict[str, Any] = POOL, ready: int = 2) -> None:
        self.launch(models)
        self.wait(ready)

    def wait(self, ready: int = 2) -> None:
        wait_until(lambda: len(self.pids()) == ready, 90, "the replicas")

    def launch(self, models: dict[str, Any] = POOL) -> None:
        file = self.home / f"pool-{self.port}.yaml"
        file.write_text(yaml.safe_dump({"models": models, "engine_grace_s": self.grace_s}))
        line = [sys.executable, "-m", "sage_gateway.app", "--port", str(self.port)]
        env = {**os.environ, "SAGE_HOME": str(self.home), "SAGE_GATEWAY_KEY": KEY}
        with (self.home / f"gateway-{self.port}.log").open("ab") as log:
            line += ["--pool", str(file)]
            self.process = subprocess.Popen(line, env=env, stdout=log, stderr=log)

    def end(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.request(method, url, headers=headers, timeout=20, verify=False, **more)

    def chat(self) -> int:
        body = {"model": "talk", "messages": [{"role": "user", "content": "echo hi"}]}
        return self.ask("POST", "/v1/chat/completions", json=body).status_code

    def pids(self) -> set[int]:
        """The process ids of the ready replicas."""
        try:
            found = self.ask("GET", "/pool/replicas").json()["data"]
        except httpx.TransportError:
            return set()
        return {r["pid"] for r in found if r["state"] == "ready"}

    @property
    def folder(self) -> Path:
        return self.home / "run" / f"gateway-{self.port}"


@contextmanager
def gateway(home: Path, **more: Any) -> Iterator[GatewayProcess]:
    """A gateway that is killed at the end, with all of its processes."""
    found = GatewayProcess(home, **more)
    try:
        yield found
    finally:
        if found.process is not None:
            found.end(signal.SIGKILL)
        for file in found.folder.glob("*.json"):
            file.unlink(missing_ok=True)  # without a record their watchers end them
        wait_until(lambda: not processes_of(home), 60, f"engines of {home} to end")


def processes_of(home: Path) -> list[int]:
    """Every process that was started from ``home``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SAGE_HOME") == str(home):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_the_next_gateway_adopts_the_engines_and_starts_none(tmp_path: Path) -> None:
    with gateway(tmp_path) as one:
        one.start()
        before = one.pids()
        one.end(signal.SIGKILL)
        assert all(psutil.pid_exists(pid) for pid in before)
        one.start()

        assert one.pids() == before
        assert one.chat() == 200
        os.kill(min(before), signal.SIGKILL)  # an adopted engine is supervised like any other
        wait_until(lambda: len(one.pids() - before) == 1, 60, "another in its place")
        assert max(before) in one.pids()


def test_the_wanted_state_survives_a_kill(tmp_path: Path) -> None:
    with gateway(tmp_path) as one:
        one.start()
        one.ask("POST", "/pool/models/talk/scale", json={"replicas": 3})
        one.ask("PUT", "/pool/models/more", json={"engine": "fake", "kind": "chat"})
        wait_until(lambda: len(one.pids()) == 4, 60, "four replicas")
        before = one.pids()
        one.end(signal.SIGKILL)
        one.start(ready=4)

        assert one.pids() == before


def test_an_ordered_stop_leaves_no_engine_and_no_record(tmp_path: Path) -> None:
    with gateway(tmp_path) as one:
        one.start()
        one.end(signal.SIGTERM)

        # Engines without a gateway would last GRACE_S more.
        wait_until(lambda: not processes_of(tmp_path), 20, "all to end with the gateway")
        assert not one.folder.exists()


def test_an_engine_with_another_command_line_is_ended_and_started_again(tmp_path: Path) -> None:
    other = {**POOL, "removed": {"engine": "fake", "kind": "chat"}}
    with gateway(tmp_path) as one:
        one.start(other, ready=3)
        before = one.pids()
        one.end(signal.SIGKILL)
        one.start({"talk": {**POOL["talk"], "arguments": ["--load-s", "0.1"]}})

        assert not one.pids() & before
        wait_until(lambda: all(map(has_ended, before)), 30, "the old ones to end")


def test_a_hung_engine_is_not_adopted(tmp_path: Path) -> None:
    models = {"talk": {**POOL["talk"], "health": {"timeout_s": 1.0}}}
    with gateway(tmp_path) as one:
        one.start(models)
        before = one.pids()
        hung = min(before)
        one.end(signal.SIGKILL)
        os.kill(hung, signal.SIGSTOP)
        one.start(models)

        assert len(one.pids() & before) == 1
        assert hung not in one.pids()


def test_engines_without_a_gateway_end_after_their_grace_time(tmp_path: Path) -> None:
    with gateway(tmp_path, grace_s=5.0) as one:
        one.start()
        engines = one.pids()
        one.end(signal.SIGKILL)
        assert not any(map(has_ended, engines))

        wait_until(lambda: not processes_of(tmp_path), 60, "the engines to end by themselves")
        assert not list(one.folder.glob("*.json"))


def test_two_gateways_of_one_home_leave_each_others_engines_alone(tmp_path: Path) -> None:
    with gateway(tmp_path) as one, gateway(tmp_path) as two:
        one.start()
        before = one.pids()
        one.end(signal.SIGKILL)
        two.launch()
        one.launch()
        two.wait()
        one.wait()
        others = two.pids()

        assert not others & before
        assert one.pids() == before
        assert two.pids() == others
        two.end(signal.SIGTERM)
        assert one.chat() == 200
        one.end(signal.SIGTERM)


def record(**more: Any) -> EngineRecord:
    me = os.getpid()
    known = {"model": "a/b", "index": 0, "pid": me, "created_s": created_s(me), "port": 1}
    return EngineRecord.model_validate({**known, "digest": "x", "owner": me, **more})


def test_a_record_is_private_and_is_read_back_unchanged(tmp_path: Path) -> None:
    records = EngineStateStore(tmp_path / "run")
    assert records.open()
    path = records.new_path("a/b", 0)
    records.write_engine(path, record())

    assert list(records.running_engines()) == [(path, record())]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    records.close()
    assert not path.parent.exists()


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', "[]"])
def test_a_file_that_is_not_a_record_is_removed(tmp_path: Path, text: str) -> None:
    records = EngineStateStore(tmp_path)
    (tmp_path / "m~0~x.json").write_text(text)

    assert list(records.running_engines()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_process_with_the_same_id_and_another_start_time_is_another(tmp_path: Path) -> None:
    records = EngineStateStore(tmp_path)
    records.write_engine(records.new_path("m", 0), record(created_s=created_s(os.getpid()) - 60))
    records.write_engine(records.new_path("m", 1), record(pid=2**22 + 1))

    assert list(records.running_engines()) == []


def test_a_folder_has_one_gateway_at_a_time(tmp_path: Path) -> None:
    one, two = EngineStateStore(tmp_path / "run"), EngineStateStore(tmp_path / "run")

    assert one.open()
    assert not two.open()
    two.close()
    assert (tmp_path / "run").exists()
    one.close()


def test_the_wanted_state_is_read_only_for_the_same_pool_file(tmp_path: Path) -> None:
    records = EngineStateStore(tmp_path)
    wanted = WantedState(base="b", models={}, replicas={"talk": 3})
    records.write_wanted(wanted)

    assert records.read_wanted("b") == wanted
    assert records.read_wanted("c") is None


def test_the_digest_covers_the_command_line_and_its_environment() -> None:
    assert digest(["a", "b"], {}) != digest(["a b"], {})
    assert digest(["a"], {"x": "1", "y": "2"}) == digest(["a"], {"y": "2", "x": "1"})
    assert digest(["a"], {"x": "1"}) != digest(["a"], {})

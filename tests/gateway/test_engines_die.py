"""Engines that exit, hang or start slowly; and a gateway that is killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import has_ended, wait_until

from sage_flink.common import ConfigError
from sage_gateway.app import listen, main
from sage_gateway.engines import ENGINES, Engine, Launch, process

pytestmark = pytest.mark.processes

POOL = "{engine_grace_s: 0.1, models: {talk: {engine: fake, kind: chat}}}"


def pid(gateway: Any, replica: int = 0) -> int:
    found: int = gateway.pool.models["talk"].replica_slots[replica].process.pid
    return found


def failing_engine(
    starts: int, until: threading.Event, error: type[BaseException] = KeyError
) -> Engine:
    """A fake engine whose command line fails after so many calls, until the event is set."""
    turns: list[int] = []

    def argv(launch: Launch) -> list[str]:
        turns.append(launch.port)
        if len(turns) > starts and not until.is_set():
            raise error("mood")
        return ENGINES["fake"].argv(launch)

    return Engine(kinds=frozenset({"chat"}), argv=argv, weights=False)


def test_a_killed_engine_is_started_again_and_serves(start: Any, fake: Any) -> None:
    again = threading.Event()
    engines = {"odd": failing_engine(2, again)}  # after the check before the start, and the start
    with start({"talk": {**fake(), "engine": "odd"}}, engines=engines) as gateway:
        old = pid(gateway)
        os.kill(old, signal.SIGKILL)
        gateway.until(lambda: gateway.client.get("/health").json()["status"] == "degraded")
        again.set()
        gateway.until(gateway.healthy)

        assert gateway.chat("echo again").status_code == 200
        assert pid(gateway) != old


def test_with_a_second_replica_a_dead_engine_fails_no_request(start: Any, fake: Any) -> None:
    with start({"talk": fake(replicas=2)}) as gateway:
        gateway.until(lambda: gateway.pool.models["talk"].ready() == 2)
        seen = []
        for turn in range(60):
            if turn == 20:
                os.kill(pid(gateway), signal.SIGKILL)
            seen.append(gateway.chat("echo hi").status_code)

        assert set(seen) == {200}


def test_a_request_that_kills_engines_is_tried_at_most_twice(start: Any, fake: Any) -> None:
    with start({"talk": fake(replicas=3)}) as gateway:
        gateway.until(lambda: gateway.pool.models["talk"].ready() == 3)
        answer = gateway.chat("die")

        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "engine_lost"
        assert int(answer.headers["retry-after"]) >= 1
        assert gateway.chat("echo the third one lives").status_code == 200


def test_a_hung_engine_is_killed_and_started_again(
    start: Any, fake: Any, hung_early: dict[str, float]
) -> None:
    with start({"talk": fake(health=hung_early)}) as gateway:
        old = pid(gateway)
        os.kill(old, signal.SIGSTOP)
        gateway.until(
            lambda: (
                pid(gateway) != old
                if gateway.pool.models["talk"].replica_slots[0].process
                else False
            )
        )
        gateway.until(gateway.healthy)

        assert not psutil.pid_exists(old)
        assert gateway.chat("echo again").status_code == 200


def test_before_an_engine_is_ready_the_answer_is_503_with_a_time_to_wait(
    start: Any, fake: Any
) -> None:
    with start({"talk": fake(arguments=["--load-s", "1"])}, wait=False) as gateway:
        health = gateway.client.get("/health")
        answer = gateway.chat("echo early")

        assert (health.status_code, health.json()["status"]) == (503, "starting")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "not_ready"
        assert int(answer.headers["retry-after"]) >= 1


def test_an_engine_that_cannot_start_is_retried_with_backoff(start: Any, fake: Any) -> None:
    with start({"talk": fake(arguments=["--no-such-option"])}, wait=False) as gateway:
        replica = lambda: gateway.pool.models["talk"].replica_slots[0].replica  # noqa: E731
        gateway.until(lambda: replica().restarts >= 2)

        why = "exited with 2: serve_fake.py: error: unrecognized arguments: --no-such-option"
        assert replica().reason == why
        assert gateway.client.get("/health").json()["models"]["talk"]["reasons"] == [why]
        assert why in gateway.chat("echo hi").json()["error"]["message"]


def test_the_log_of_an_engine_that_has_served_is_not_in_the_reason(
    start: Any, fake: Any, tmp_path: Path
) -> None:
    model = fake(health={**fake()["health"], "backoff_first_s": 5})
    with start({"talk": model}, home=tmp_path) as gateway:
        slot = gateway.pool.models["talk"].replica_slots[0]
        (tmp_path / "logs" / "engine-talk-0.log").write_text("the prompt of a caller\n")
        gateway.chat("die")
        gateway.until(lambda: slot.replica.restarts == 1)

        assert slot.replica.reason == "exited with 3"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("old\n", ""),
        ("old\nfirst\nlast\n\n", "last"),
        ("old\n\x1b[31mred\x1b[0m \x07bell", "red bell"),
        ("old\n" + "x" * 10_000, "x" * 300),
        ("ro", "ro"),
    ],
)
def test_the_last_line_of_a_log_is_of_this_start_and_short(
    tmp_path: Path, text: str, line: str
) -> None:
    log = tmp_path / "log"
    log.write_text(text)

    assert process.last_line(log, after=len("old\n")) == line
    assert process.last_line(tmp_path / "absent", after=0) == ""


def test_a_failed_engine_is_logged_with_the_path_of_its_log(
    start: Any, fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with start({"talk": fake(arguments=["--no-such-option"])}, wait=False) as gateway:
        gateway.until(lambda: "exited with 2" in caplog.text)
    message = next(r.getMessage() for r in caplog.records if "exited with 2" in r.getMessage())

    file = Path(message.split("; its log: ")[1])
    assert "unrecognized arguments: --no-such-option" in file.read_text()


async def test_a_program_that_cannot_be_run_is_reported_in_the_engines_log(tmp_path: Path) -> None:
    child = await process.start(["/no/such/program", "--port", "1"], {}, tmp_path / "log")

    assert await child.wait() == 127
    assert "cannot run /no/such/program: No such file" in (tmp_path / "log").read_text()


def broken_argv(launch: Launch) -> list[str]:
    raise KeyError(launch.spec.arguments[0])


def absent(_: Launch) -> list[str]:
    return ["no-such-program"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (broken_argv, "engine odd gives no command line: KeyError('--more')"),
        (absent, "no program no-such-program for engine odd"),
    ],
)
def test_an_engine_without_a_command_line_is_reported_before_the_start(
    start: Any, fake: Any, argv: Callable[[Launch], list[str]], message: str
) -> None:
    odd = Engine(kinds=frozenset({"chat"}), argv=argv, weights=False)
    models = {name: {**fake(arguments=["--more"]), "engine": "odd"} for name in ("a", "b")}

    with pytest.raises(ConfigError) as caught, start(models, engines={"odd": odd}):
        pass

    head, *lines = str(caught.value).splitlines()
    assert head == "pool: 2 mistakes"
    assert all(f"models.{name}: {message}" in line for name, line in zip("ab", lines, strict=True))


def test_an_engine_that_is_not_registered_is_reported_before_the_start(
    start: Any, fake: Any
) -> None:
    with (
        pytest.raises(ConfigError, match=r"models\.talk\.engine: 'new' is not one of fake, "),
        start({"talk": {**fake(), "engine": "new"}}),
    ):
        pass


def test_an_engine_with_a_failing_command_line_is_retried(start: Any, fake: Any) -> None:
    again = threading.Event()
    engines = {"odd": failing_engine(1, again)}  # after the check before the start
    with start({"talk": {**fake(), "engine": "odd"}}, engines=engines, wait=False) as gateway:
        gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].replica.restarts > 0)
        reasons = gateway.client.get("/health").json()["models"]["talk"]["reasons"]
        again.set()
        gateway.until(gateway.healthy)

        assert reasons == ["cannot start: KeyError('mood')"]
        assert gateway.chat("echo at last").status_code == 200


class Fatal(BaseException):
    """An exception that no supervisor catches."""


def test_a_replica_without_a_supervisor_is_reported(
    start: Any, fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engines = {"odd": failing_engine(1, threading.Event(), Fatal)}
    with start({"talk": {**fake(), "engine": "odd"}}, engines=engines, wait=False) as gateway:
        gateway.until(lambda: "talk/0: the replica has no supervisor any more" in caplog.text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_engines_end_with_the_gateway_however_it_ends(tmp_path: Path, number: int) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(POOL)
    line = [sys.executable, "-m", "sage_gateway.app", "--port", "0", "--pool", str(file)]
    env = {**os.environ, "SAGE_HOME": str(tmp_path)}
    with subprocess.Popen(
        line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as gateway:
        assert gateway.stderr is not None
        while b"-> ready" not in gateway.stderr.readline():
            assert gateway.poll() is None
        engines = psutil.Process(gateway.pid).children()
        gateway.send_signal(number)
        gateway.wait(30)
        assert engines
        wait_until(lambda: all(has_ended(one.pid) for one in engines), 30, "the engines to end")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (POOL.replace("fake", "llamacpp, source: nothing.gguf"), "run `bash infra/setup.sh`"),
        (POOL.replace("fake", "llamacpp"), "engine llamacpp needs a source"),
        (POOL.replace("fake", "fake, source: x"), "engine fake has no weights; remove source"),
        (POOL.replace("fake", "onnx"), "engine onnx serves kind embedding, not chat"),
        (POOL.replace("chat", "song"), "models.talk.kind"),
    ],
)
def test_a_gateway_that_cannot_start_prints_the_reason_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(text)
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["sage-gateway", "--port", "0", "--pool", str(file)])

    with pytest.raises(SystemExit) as ended:
        main()

    assert message in str(ended.value)
    assert "\n" not in str(ended.value)


def test_a_port_in_use_is_reported_before_any_engine_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(POOL)
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["sage-gateway", "--port", port, "--pool", str(file)])

        with pytest.raises(SystemExit, match="give --port another one"):
            main()

    assert not (tmp_path / "logs").exists()

"""Flink standalone from the PyFlink wheel: one JobManager, one TaskManager with four slots.

A session cluster without high availability: when the JobManager dies its jobs are gone, with
the records that were in flight in them; when the TaskManager dies they go on from the last
checkpoint, and ``sage down`` drains them first.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from sage_flink.common.errors import StackError
from sage_flink.platform.stack.home import Home
from sage_flink.platform.stack.part import Part, answers
from sage_flink.platform.stack.ports import Ports

SLOTS = 4


def cluster_settings(home: Home, ports: Ports) -> dict[str, Any]:
    """What differs from Flink's shipped config.yaml, as flat keys."""
    python = str(home.python)
    data = home.data("flink")
    return {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": ports["flink_rpc"],
        "jobmanager.bind-host": "127.0.0.1",
        "jobmanager.memory.process.size": "1024m",
        "blob.server.port": str(ports["flink_blob"]),
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": ports["flink"],
        "rest.bind-port": str(ports["flink"]),
        "web.submit.enable": False,
        "web.cancel.enable": True,
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "taskmanager.numberOfTaskSlots": SLOTS,
        # JVM and Python workers together; the workers live in its managed part.
        "taskmanager.memory.process.size": "2048m",
        # On two cores or fewer Java answers every asynchronous HTTP response on a new thread
        # (CompletableFuture: no common pool of one); with two it keeps them.
        "env.java.opts.taskmanager": "-Djava.util.concurrent.ForkJoinPool.common.parallelism=2",
        "python.executable": python,
        "python.client.executable": python,
        "execution.checkpointing.dir": (data / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (data / "savepoints").as_uri(),
        "io.tmp.dirs": str(data / "tmp"),
        # A dead TaskManager is noticed in seconds; Flink's 50 s suits clusters with long pauses.
        "heartbeat.interval": "2 s",
        "heartbeat.timeout": "8 s",
        # A TaskManager that starts before its JobManager asks again after this, not after 10 s.
        "cluster.registration.error-delay": "1 s",
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "500 ms",
        "restart-strategy.exponential-delay.max-backoff": "5 s",
        "restart-strategy.exponential-delay.backoff-multiplier": 1.5,
        "restart-strategy.exponential-delay.reset-backoff-threshold": "1 min",
        "restart-strategy.exponential-delay.attempts-before-reset-backoff": 100,
    }


def merged(shipped: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``shipped`` with the flat ``changes`` put in place; what they do not name stays.

    ``env.java.opts.all`` must stay: without its ``--add-opens`` every `flink run` dies with
    InaccessibleObjectException.
    """
    result = flat(shipped)
    result.update(changes)
    return result


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested YAML as dotted keys, which Flink reads as well."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def write_conf(home: Home, ports: Ports) -> None:
    """``conf/flink``: Flink's shipped folder with our config.yaml.

    Raises:
        StackError: PyFlink is not installed.
    """
    shipped, folder = home.need(home.pyflink / "conf"), home.conf("flink")
    shutil.copytree(shipped, folder, dirs_exist_ok=True)
    settings = yaml.safe_load((shipped / "config.yaml").read_text())
    if "env.java.opts.all" not in flat(settings):
        raise StackError(
            f"{shipped / 'config.yaml'} lacks env.java.opts.all; "
            "run `bash infra/setup.sh` for a whole PyFlink"
        )
    (folder / "config.yaml").write_text(
        yaml.safe_dump(merged(settings, cluster_settings(home, ports)), width=10_000)
    )
    data = home.data("flink")
    for made in (data / "checkpoints", data / "savepoints", data / "tmp", home.root / "logs/flink"):
        made.mkdir(parents=True, exist_ok=True)


def environment(home: Home) -> dict[str, str]:
    """What Flink's start scripts read; the data plane's Python comes first on PATH."""
    return {
        "FLINK_CONF_DIR": str(home.conf("flink")),
        "FLINK_LOG_DIR": str(home.root / "logs" / "flink"),
        "FLINK_PID_DIR": str(home.run),
        "FLINK_IDENT_STRING": "sage",
        "PATH": f"{home.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


def script(home: Home, name: str) -> str:
    """The path of one of Flink's start scripts; setup made them executable."""
    return str(home.pyflink / "bin" / name)


def jobmanager(home: Home, ports: Ports) -> Part:
    """Flink's JobManager with its web page on ``ports['flink']``."""
    url = f"http://127.0.0.1:{ports['flink']}"
    return Part(
        name="jobmanager",
        command=(script(home, "jobmanager.sh"), "start-foreground"),
        folder=home.data("flink"),
        ports=("flink", "flink_rpc", "flink_blob"),
        url=url,
        env=environment(home),
        prepare=lambda: write_conf(home, ports),
        ready=lambda: answers(f"{url}/overview", lambda response: response.status_code == 200),
    )


def taskmanager(home: Home, ports: Ports) -> Part:
    """Flink's TaskManager under a guard that ends its Python workers with it.

    Ready when the JobManager knows it.
    """
    url = f"http://127.0.0.1:{ports['flink']}"
    guard, start = Path(__file__).with_name("guard.py"), script(home, "taskmanager.sh")
    return Part(
        name="taskmanager",
        command=(
            str(home.python),
            "-I",
            str(guard),
            start,
            "start-foreground",
        ),
        folder=home.data("flink"),
        ports=(),
        url="",
        env=environment(home),
        ready=lambda: answers(
            f"{url}/overview", lambda response: int(response.json()["taskmanagers"]) >= 1
        ),
    )

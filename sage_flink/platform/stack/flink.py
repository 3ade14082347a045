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
from sage_flink.platform.stack.influxdb import FLINK_BUCKET, USER, token
from sage_flink.platform.stack.part import Part, answers
from sage_flink.platform.stack.ports import Ports

SLOTS = 4
REPORT_INTERVAL = "2 s"
#: <logical scope>:<names>:<types> of the metrics that go to InfluxDB: the account and the calls.
REPORTED = (
    "*.step:*:counter",
    "*.operator:in_flight,queued,urls_away,attempts,retries,failed,latency_ms,gathered_*,tokens_*:*",
)
#: Without InfluxDB, which no job needs, the reporter would log a stack trace at each interval.
QUIET = """
logger.reporter.name = org.apache.flink.runtime.metrics.MetricRegistryImpl
logger.reporter.level = ERROR
"""
NO_TAGS = (
    "host",
    "job_id",
    "operator_id",
    "task_attempt_id",
    "task_attempt_num",
    "task_id",
    "task_name",
    "tm_id",
)


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


def reporter_settings(ports: Ports, password: str) -> dict[str, Any]:
    """Flink's InfluxDB reporter, for sage's own metrics only, into the bucket ``flink``.

    Their number is bounded by the pipelines: what changes with each attempt, task or TaskManager is
    no tag. Left are ``job_name``, ``operator_name``, ``subtask_index`` and ``step``.
    """
    own = {
        "factory.class": "org.apache.flink.metrics.influxdb.InfluxdbReporterFactory",
        "scheme": "http",
        "host": "127.0.0.1",
        "port": ports["influxdb"],
        "db": FLINK_BUCKET,
        # InfluxDB 2 takes a token as the password of any user of its 1.x interface.
        "username": USER,
        "password": password,
        "interval": REPORT_INTERVAL,
        "filter.includes": ";".join(REPORTED),
        "scope.variables.excludes": ";".join(NO_TAGS),
    }
    named = {f"metrics.reporter.influxdb.{key}": value for key, value in own.items()}
    return {"metrics.reporters": "influxdb", **named}


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
    changes = cluster_settings(home, ports)
    if password := token(home):
        changes |= reporter_settings(ports, password)
    config = folder / "config.yaml"
    config.touch(mode=0o600)
    config.chmod(0o600)  # it holds the token, and was copied readable for all
    config.write_text(yaml.safe_dump(merged(settings, changes), width=10_000))
    with (folder / "log4j-console.properties").open("a") as logged:
        logged.write(QUIET)
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

"""Flink standalone from the PyFlink wheel: one JobManager, one TaskManager with four slots.

A session cluster with high availability: jobs outlive the JobManager and a crash of the machine,
and go on from their last checkpoint; ``sage down`` drains them first.
"""

import shutil
from pathlib import Path
from typing import Any

import yaml

from sage_flink.common.errors import StackError
from sage_flink.platform.stack import flink_launch
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
        "high-availability.type": "zookeeper",
        "high-availability.cluster-id": "/sage",
        "high-availability.storageDir": (data / "ha").as_uri(),
        "high-availability.jobmanager.port": ports["flink_rpc"],
        "high-availability.zookeeper.quorum": f"127.0.0.1:{ports['zookeeper']}",
        # A dead JobManager keeps its leadership until its session ends: it bounds from below how
        # soon the next one leads. A restart of ZooKeeper alone must not be longer.
        "high-availability.zookeeper.client.session-timeout": "5 s",
        "high-availability.zookeeper.client.connection-timeout": "3 s",
        "high-availability.zookeeper.client.retry-wait": "500 ms",
        "high-availability.zookeeper.client.max-retry-attempts": 20,
        "high-availability.zookeeper.client.tolerate-suspended-connections": True,
        # Rescales a running job when it is asked to; the waits suit clusters whose TaskManagers
        # come one by one.
        "jobmanager.scheduler": "adaptive",
        "jobmanager.adaptive-scheduler.executing.cooldown-after-rescaling": "1 s",
        "jobmanager.adaptive-scheduler.executing.resource-stabilization-timeout": "5 s",
        "jobmanager.adaptive-scheduler.submission.resource-stabilization-timeout": "2 s",
        "jobmanager.memory.process.size": "1024m",
        # It leads sooner after a death: 1.8 s of processor time to start instead of 3.0.
        "env.java.opts.jobmanager": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
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
        "cluster.registration.refused-registration-delay": "1 s",
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
    """``conf/flink``: Flink's shipped folder with our config.yaml, and both command lines.

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
    ours = merged(settings, changes)
    config = folder / "config.yaml"
    config.touch(mode=0o600)
    config.chmod(0o600)  # it holds the token, and was copied readable for all
    config.write_text(yaml.safe_dump(ours, width=10_000))
    with (folder / "log4j-console.properties").open("a") as logged:
        logged.write(QUIET)
    for role in flink_launch.ENTRY:
        flink_launch.write(home, role, ours)
    data = home.data("flink")
    for made in (
        data / "checkpoints",
        data / "savepoints",
        data / "ha",
        data / "tmp",
        home.root / "logs/flink",
    ):
        made.mkdir(parents=True, exist_ok=True)


def jobmanager(home: Home, ports: Ports) -> Part:
    """Flink's JobManager with its web page on ``ports['flink']``."""
    url = f"http://127.0.0.1:{ports['flink']}"
    return Part(
        name="jobmanager",
        command=flink_launch.command(home, "jobmanager"),
        folder=home.data("flink"),
        ports=("flink", "flink_rpc", "flink_blob"),
        url=url,
        env=flink_launch.environment(home),
        ready_s=120.0,
        prepare=lambda: write_conf(home, ports),
        ready=lambda: answers(f"{url}/overview", lambda response: response.status_code == 200),
    )


def taskmanager(home: Home, ports: Ports) -> Part:
    """Flink's TaskManager under a guard that ends its Python workers with it.

    Ready when the JobManager knows it.
    """
    url = f"http://127.0.0.1:{ports['flink']}"
    guard = Path(__file__).with_name("guard.py")
    return Part(
        name="taskmanager",
        command=(str(home.python), "-I", str(guard), *flink_launch.command(home, "taskmanager")),
        folder=home.data("flink"),
        ports=(),
        url="",
        env=flink_launch.environment(home),
        ready_s=120.0,
        ready=lambda: answers(
            f"{url}/overview", lambda response: int(response.json()["taskmanagers"]) >= 1
        ),
    )

"""Flink standalone from the PyFlink wheel: one JobManager, one TaskManager with four slots.

A session cluster with high availability: jobs survive the death of the JobManager and a crash of
the machine, and continue from their last checkpoint; ``sage down`` drains them first.

Flink's REST API and web page have no password, so they listen on loopback, also in a secured stack.
"""

import shutil
from pathlib import Path
from typing import Any

import yaml

from sage_flink.common.errors import StackError
from sage_flink.platform.plain_paths import plain_path
from sage_flink.platform.stack import flink_launch, truststore
from sage_flink.platform.stack.influxdb import FLINK_BUCKET, token
from sage_flink.platform.stack.ports import Ports
from sage_flink.platform.stack.server import Server, responds
from sage_flink.platform.stack.stack_directory import StackDirectory, write_private
from sage_flink.platform.stack.stack_json import USER

SLOTS, CLUSTER = 4, "sage"
REPORT_INTERVAL = "2 s"
#: <logical scope>:<names>:<types> of the metrics for InfluxDB: record counters and calls.
REPORTED = (
    "*.step:*:counter",
    "*.operator:in_flight,queued,urls_away,attempts,retries,failed,merged,latency_ms,gathered_*,tokens_*:*",
)
#: No job needs InfluxDB, but without it the reporter would log a stack trace at each interval.
QUIET_REPORTER = """
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


def cluster_settings(directory: StackDirectory, ports: Ports) -> dict[str, Any]:
    """Settings that differ from Flink's shipped config.yaml, as flat keys."""
    data = directory.data("flink")
    return {
        **_high_availability(data, ports),
        **_jobmanager_settings(ports),
        **_taskmanager_settings(str(directory.python)),
        "execution.checkpointing.dir": (data / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (data / "savepoints").as_uri(),
        "io.tmp.dirs": str(data / "tmp"),
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "500 ms",
        "restart-strategy.exponential-delay.max-backoff": "5 s",
        "restart-strategy.exponential-delay.backoff-multiplier": 1.5,
        "restart-strategy.exponential-delay.reset-backoff-threshold": "1 min",
        "restart-strategy.exponential-delay.attempts-before-reset-backoff": 100,
    }


def _high_availability(data: Path, ports: Ports) -> dict[str, Any]:
    return {
        "high-availability.type": "zookeeper",
        "high-availability.cluster-id": f"/{CLUSTER}",
        "high-availability.storageDir": (data / "ha").as_uri(),
        "high-availability.jobmanager.port": ports["flink_rpc"],
        "high-availability.zookeeper.quorum": f"127.0.0.1:{ports['zookeeper']}",
        # A dead JobManager stays the leader until its ZooKeeper session expires, so this is the
        # shortest time to a new leader. A restart of ZooKeeper alone must fit into it, and so must
        # the longest pause of a machine whose cores are busy: 5 s did not.
        "high-availability.zookeeper.client.session-timeout": "10 s",
        "high-availability.zookeeper.client.connection-timeout": "3 s",
        "high-availability.zookeeper.client.retry-wait": "500 ms",
        "high-availability.zookeeper.client.max-retry-attempts": 20,
        "high-availability.zookeeper.client.tolerate-suspended-connections": True,
    }


def _jobmanager_settings(ports: Ports) -> dict[str, Any]:
    return {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": ports["flink_rpc"],
        "jobmanager.bind-host": "127.0.0.1",
        # The adaptive scheduler can rescale a running job; its default waits are for clusters
        # whose TaskManagers start one after the other.
        "jobmanager.scheduler": "adaptive",
        "jobmanager.adaptive-scheduler.executing.cooldown-after-rescaling": "1 s",
        "jobmanager.adaptive-scheduler.executing.resource-stabilization-timeout": "5 s",
        "jobmanager.adaptive-scheduler.submission.resource-stabilization-timeout": "2 s",
        "jobmanager.memory.process.size": "1024m",
        # A restarted JobManager becomes leader sooner: 1.8 s of CPU time to start instead of 3.0.
        "env.java.opts.jobmanager": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "blob.server.port": str(ports["flink_blob"]),
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": ports["flink"],
        "rest.bind-port": str(ports["flink"]),
        "web.submit.enable": False,
        "web.cancel.enable": True,
    }


def _taskmanager_settings(python: str) -> dict[str, Any]:
    return {
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "taskmanager.numberOfTaskSlots": SLOTS,
        # JVM and Python workers together; the workers use its managed memory.
        "taskmanager.memory.process.size": "2304m",
        # A job's classes take 5 MB, and those of some jobs stay: 256 MB were full after 70 jobs.
        "taskmanager.memory.jvm-metaspace.size": "512m",
        # Buffers in front of a slow call hold what it answers in seconds, not thousands of
        # records: a barrier waits behind them, and so does all output of its checkpoint. With
        # Flink's target of 1 s a call of 50 ms lost 5 to 12 % of its throughput, with 5 s nothing.
        "taskmanager.network.memory.buffer-debloat.enabled": True,
        "taskmanager.network.memory.buffer-debloat.target": "5 s",
        "python.executable": python,
        "python.client.executable": python,
        # A dead TaskManager is detected in seconds; Flink's 50 s is for clusters with long pauses.
        "heartbeat.interval": "2 s",
        "heartbeat.timeout": "8 s",
        # A TaskManager that starts before its JobManager retries after this, not after 10 s.
        "cluster.registration.error-delay": "1 s",
        "cluster.registration.refused-registration-delay": "1 s",
    }


def reporter_settings(ports: Ports, password: str, secured: bool = False) -> dict[str, Any]:
    """Flink's InfluxDB reporter, for sage's own metrics only, into the bucket ``flink``.

    Only the pipelines determine the number of series: values that change with each attempt, task or
    TaskManager are excluded from the tags. The tags are ``job_name``, ``operator_name``,
    ``subtask_index`` and ``step``.
    """
    own = {
        "factory.class": "org.apache.flink.metrics.influxdb.InfluxdbReporterFactory",
        "scheme": "https" if secured else "http",
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


def trust_settings(settings: dict[str, Any], store: Path) -> dict[str, Any]:
    """``settings`` with the trust store ``store`` for both of Flink's processes.

    The reporter has no setting for an authority of its own.
    """
    trust = (
        f"-Djavax.net.ssl.trustStore={store} "
        f"-Djavax.net.ssl.trustStorePassword={truststore.PASSWORD}"
    )
    keys = [f"env.java.opts.{role}" for role in flink_launch.ENTRY]
    return settings | {key: f"{settings.get(key, '')} {trust}".strip() for key in keys}


def merge_settings(shipped: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``shipped`` as flat keys, overridden by ``changes``.

    The shipped ``env.java.opts.all`` must stay: without its ``--add-opens`` every `flink run` fails
    with InaccessibleObjectException.
    """
    result = flatten(shipped)
    result.update(changes)
    return result


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested YAML as dotted keys, which Flink reads as well."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves.update(flatten(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def jobs_to_continue(directory: StackDirectory) -> int:
    """How many jobs continue when Flink starts: one file of its HA services for each."""
    return len(list((directory.data("flink") / "ha" / CLUSTER).glob("submittedExecutionPlan*")))


def write_conf(directory: StackDirectory, ports: Ports, secured: bool = False) -> None:
    """Write ``conf/flink``: Flink's shipped folder with our config.yaml, and both command lines.

    Raises:
        StackError: PyFlink is not installed.
    """
    shipped, conf = directory.require(directory.pyflink / "conf"), directory.conf("flink")
    shutil.copytree(shipped, conf, dirs_exist_ok=True)
    settings = yaml.safe_load((shipped / "config.yaml").read_text())
    if "env.java.opts.all" not in flatten(settings):
        raise StackError(
            f"{shipped / 'config.yaml'} lacks env.java.opts.all; "
            "run `bash infra/setup.sh` to install a complete PyFlink"
        )
    changes = cluster_settings(directory, ports)
    if password := token(directory):
        changes |= reporter_settings(ports, password, secured)
    if secured:
        changes = trust_settings(changes, truststore.ensure(directory))
    ours = merge_settings(settings, changes)
    # It holds the token, and the copy was readable by all users.
    write_private(conf / "config.yaml", yaml.safe_dump(ours, width=10_000))
    with (conf / "log4j-console.properties").open("a") as logging:
        logging.write(QUIET_REPORTER)
    for role in flink_launch.ENTRY:
        flink_launch.write(directory, role, ours)
    data = directory.data("flink")
    for folder in (
        data / "checkpoints",
        data / "savepoints",
        data / "ha",
        data / "tmp",
        directory.root / "logs/flink",
    ):
        folder.mkdir(parents=True, exist_ok=True)


def jobmanager(directory: StackDirectory, ports: Ports, secured: bool = False) -> Server:
    """Flink's JobManager, with its web UI on ``ports['flink']``."""
    url = f"http://127.0.0.1:{ports['flink']}"
    return Server(
        name="jobmanager",
        command=flink_launch.command(directory, "jobmanager"),
        folder=directory.data("flink"),
        ports=("flink", "flink_rpc", "flink_blob"),
        url=url,
        env=flink_launch.environment(directory),
        prepare=lambda: write_conf(directory, ports, secured),
        ready=lambda: responds(f"{url}/overview", lambda response: response.status_code == 200),
    )


def taskmanager(directory: StackDirectory, ports: Ports, _secured: bool = False) -> Server:
    """Flink's TaskManager, under a process guard that ends its Python workers with it.

    Ready when it is registered at the JobManager.
    """
    url = f"http://127.0.0.1:{ports['flink']}"
    guard = plain_path(Path(__file__).parent) / "process_guard.py"
    return Server(
        name="taskmanager",
        command=(
            str(directory.python),
            "-I",
            str(guard),
            "--workers",
            *flink_launch.command(directory, "taskmanager"),
        ),
        stop_s=25,  # it may write its class archive
        folder=directory.data("flink"),
        ports=(),
        url="",
        env=flink_launch.environment(directory),
        ready=lambda: responds(
            f"{url}/overview", lambda response: int(response.json()["taskmanagers"]) >= 1
        ),
    )

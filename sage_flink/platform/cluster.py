"""PyFlink execution environment of a job, with sage's native operators on its class path."""

import locale
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pyflink
from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.util.java_utils import add_jars_to_context_class_loader

from sage_flink.common.errors import ConfigError
from sage_flink.common.settings import Settings
from sage_flink.common.validation import require, require_whole_number
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.native_jar import name_on_cluster, native_jar
from sage_flink.platform.plain_paths import UTF8, plain_path
from sage_flink.platform.worker_python import worker_python

#: Read at import, before PyFlink starts its own JVM, which sets the same variable.
INSIDE_FLINK_RUN = "PYFLINK_GATEWAY_PORT" in os.environ
BUFFER_TIMEOUT_MS = 5
StateBackend = Literal["heap", "rocksdb"]
#: Flink's names of the state backends.
BACKENDS: Mapping[StateBackend, str] = {"heap": "hashmap", "rocksdb": "rocksdb"}
#: PyFlink's own JVM runs for one submission or one test: the second compiler would cost more CPU
#: time than it saves (8.7 s instead of 4.0 s for a job with 12 steps).
CLIENT_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """How Flink runs one step. 0 and empty: as the job's other steps.

    Records are spread over the subtasks of a step with another ``parallelism`` than the step before
    it, so the order of two records of a key is lost there; a pipeline whose deletes depend on it is
    refused. ``max_parallelism`` is the number of key groups of a step with keyed state, an upper
    bound of its parallelism that its savepoints keep. Steps of a ``slot_sharing_group`` of their
    own take slots of their own.
    """

    parallelism: int = 0
    max_parallelism: int = 0
    slot_sharing_group: str = ""

    def __post_init__(self) -> None:
        for name in ("parallelism", "max_parallelism"):
            require_whole_number("step options", name, getattr(self, name), 0)
        group = isinstance(self.slot_sharing_group, str)
        required = "the name of a group"
        require(group, "step options", "slot_sharing_group", required, self.slot_sharing_group)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlinkOptions:
    """Execution options of a job. It runs on the cluster at ``settings.flink_url`` (``remote``) or
    on a MiniCluster in this process (``local``).

    ``bundle_s`` bounds how long a Python stage collects elements before it emits them: the latency
    that each stage adds to a trickle of records. One record of ``rag_ingest`` from Kafka to a
    search that finds it took, p50 on two cores, 0.30 s at 10 ms (Milvus took 0.09 s of it); with
    one operator per step it was 0.39 s at 10 ms, 0.70 s at 100 ms, 2.0 s at PyFlink's default of
    1 s. So bundles are small, and steps share operators. Where the end of a bundle is slow, the
    next one is longer (``PythonStageOperator``). Python's thread mode has no bundles, but on JDK 17
    only the first job of a TaskManager gets it; a session cluster cannot use it.

    ``record_timeout_s`` bounds how long the Python steps of a stage take for one record: a longer
    one, such as an endless loop, ends the worker process, and at the second time the record is a
    dead letter. Checkpoints wait for it. A step that writes has no limit, because it waits for its
    store; nor has a job on a MiniCluster, whose steps run in this process.

    ``savepoint`` is the state to start from: a path, a URI, or ``latest`` for the newest state of
    a job with this name; the job's ``parallelism`` may differ from that of the savepoint. The
    savepoint is not changed. ``drop_state`` names steps that the pipeline no longer has and whose
    state may be dropped. ``checkpoints`` is the folder of this job's checkpoints; empty means the
    cluster's.

    ``state_backend`` is the place of keyed state, which windows, joins, folds and the other keyed
    steps have: ``heap``, the JVM's memory, or ``rocksdb``, the TaskManager's disk with a cache in
    its managed memory, for more keys than fit into memory; its checkpoints hold what is new since
    the last one. A job that starts from a savepoint may have the other one, from a checkpoint not.

    ``steps`` has the options of single steps, by name: a call to a slow engine, for example, or a
    step whose slots are on machines with a GPU.
    """

    target: Literal["remote", "local"] = "remote"
    parallelism: int = 1
    checkpoint_interval_s: float = 2.0
    bundle_s: float = 0.01
    bundle_items: int = 1000
    restarts_max: int = 100
    record_timeout_s: float = 300.0
    savepoint: str = ""
    drop_state: tuple[str, ...] = ()
    checkpoints: str = ""
    state_backend: StateBackend = "heap"
    steps: Mapping[str, StepOptions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        backend = self.state_backend
        known = isinstance(backend, str) and backend in BACKENDS
        require(known, "flink options", "state_backend", "heap or rocksdb", backend)


def environment(options: FlinkOptions, settings: Settings) -> StreamExecutionEnvironment:
    """An environment with the native jar, exactly-once checkpoints and small Python bundles.

    Raises:
        ConfigError: the jar is missing.
    """
    jar = native_jar(settings.home)
    if locale.getencoding() != "UTF-8":
        os.environ.update(UTF8)  # of PyFlink's JVM, which starts below
    if not jar.exists():
        raise ConfigError(f"the native operators are missing ({jar}); run `bash infra/setup.sh`")
    jars = [jar]
    # `flink run` adds PyFlink's operators to a job's jars by itself; nothing else does.
    if not INSIDE_FLINK_RUN:
        jars += Path(pyflink.__file__).parent.glob("opt/flink-python-*.jar")
    logging.getLogger("apache_beam.io.filesystems").addFilter(_is_not_about_gcs)
    paths = [plain_path(path.parent) / path.name for path in jars]
    uris = [path.as_uri() for path in paths]
    has_classes = not INSIDE_FLINK_RUN and _start_jvm(paths[0])
    config = Configuration()
    for key, value in _configuration(options).items():
        config.set_string(key, value)
    if options.target == "remote" and not INSIDE_FLINK_RUN:
        if not has_classes:
            add_jars_to_context_class_loader(uris)
        has_classes = _has_classes(settings.flink_url, jars)
        env = _remote(config, settings.flink_url)
    else:
        env = StreamExecutionEnvironment.get_execution_environment(config)
    env.set_parallelism(options.parallelism)
    env.add_jars(*([] if has_classes else uris))
    return env


def _start_jvm(jar: Path) -> bool:
    """Whether PyFlink's JVM has ``jar`` in its class path; it has if it starts here.

    ``HADOOP_CLASSPATH`` is what PyFlink appends to its own class path.
    """
    extended = os.pathsep.join(filter(None, (os.environ.get("HADOOP_CLASSPATH"), str(jar))))
    of_jvm = {"JVM_ARGS": os.environ.get("JVM_ARGS", CLIENT_JVM), "HADOOP_CLASSPATH": extended}
    before = {name: os.environ.get(name) for name in of_jvm}
    os.environ.update(of_jvm)
    try:
        jvm = get_gateway().jvm
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    return str(jar) in str(jvm.java.lang.System.getProperty("java.class.path")).split(os.pathsep)


def _has_classes(url: str, jars: Sequence[Path]) -> bool:
    """Whether the cluster has the classes of all ``jars`` itself, as that of ``sage up`` does.

    Then a job does not send them. It would load them again, and the JVM would compile them again: a
    job of twelve steps took 24.8 s of CPU time instead of 18.0 s. Some jobs never return metaspace.
    """
    with FlinkRest(url) as rest:
        known = rest.jar_names()
    native, *others = jars
    return {name_on_cluster(native), *(jar.name for jar in others)} <= known


def _is_not_about_gcs(record: logging.LogRecord) -> bool:
    """Whether a log record of Beam is worth showing.

    PyFlink loads all of Beam's file systems when it makes an environment, and Beam warns that it
    "Failed to import GCSFileSystem", which no job uses: google.cloud is there, because of
    googleapis-common-protos, but google.cloud.storage is not.
    """
    return not record.getMessage().startswith("Failed to import GCSFileSystem")


def _remote(config: Configuration, url: str) -> StreamExecutionEnvironment:
    # get_execution_environment makes a local one outside of `flink run`, whatever the target says.
    config.set_string("execution.target", "remote")
    for key, value in rest_options(url).items():
        config.set_string(key, value)
    environments = get_gateway().jvm.org.apache.flink.streaming.api.environment
    return StreamExecutionEnvironment(
        environments.StreamExecutionEnvironment(config._j_configuration)
    )


def rest_options(url: str) -> dict[str, str]:
    """The options of Flink's client for the cluster at ``url``.

    >>> rest_options("http://127.0.0.1:8081/")["rest.port"]
    '8081'

    Raises:
        ConfigError: ``url`` is not of the form ``http://host:port``, https allowed.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 8081)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise ConfigError(f"flink_url must be of the form http://host:8081, got {url!r}")
    return {
        "rest.address": parts.hostname,
        "rest.port": str(port),
        "security.ssl.rest.enabled": str(parts.scheme == "https").lower(),
    }


def _configuration(options: FlinkOptions) -> dict[str, str]:
    state = {
        "execution.checkpointing.dir": options.checkpoints,
        "execution.state-recovery.path": options.savepoint,
    }
    return {
        **{key: value for key, value in state.items() if value},
        "state.backend.type": BACKENDS[options.state_backend],
        "execution.checkpointing.incremental": "true",  # of the state in RocksDB
        "execution.state-recovery.ignore-unclaimed-state": str(bool(options.drop_state)).lower(),
        "python.executable": worker_python(),
        "python.client.executable": worker_python(),
        "python.fn-execution.bundle.time": str(round(options.bundle_s * 1000)),
        "python.fn-execution.bundle.size": str(options.bundle_items),
        # A call is a task of its own, so Flink's 100 ms would be added before and after it.
        "execution.buffer-timeout.interval": f"{BUFFER_TIMEOUT_MS} ms",
        # No operator changes the bytes of a record, so chained operators need no copies of them.
        "pipeline.object-reuse": "true",
        "execution.checkpointing.interval": f"{round(options.checkpoint_interval_s * 1000)} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.min-pause": "200 ms",
        # A broadcast join switches where a barrier is behind the same changes in all subtasks, and
        # restored watermarks are alike behind an exchange. Neither holds where barriers overtake.
        "execution.checkpointing.unaligned.enabled": "false",
        # A restart frees no disk space: the job continues, its last good checkpoint stays, and
        # `sage jobs list` shows why the new ones fail.
        "execution.checkpointing.tolerable-failed-checkpoints": "1000",
        # A cancelled or failed job can be resubmitted from its last checkpoint.
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        # While a sink's store is unreachable no barrier passes its writer, and a checkpoint that
        # times out restarts the job: harmless, but useless. Flink's default is 10 minutes.
        "execution.checkpointing.timeout": "1 h",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": str(options.restarts_max),
        "restart-strategy.fixed-delay.delay": "1 s",
    }

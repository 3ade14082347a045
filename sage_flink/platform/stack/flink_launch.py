"""Command lines of Flink's two processes, as Flink's own start scripts would build them.

Those scripts start two more JVMs at each start, to read config.yaml and to compute the memory
sizes: 1.4 s of CPU time that would delay every restart after a crash. So the sizes are computed
once, when the configuration is written, and stored in the same folder as a Java argument file.
"""

import os
from pathlib import Path
from typing import Any, Literal

from sage_flink.common.errors import StackError
from sage_flink.common.proxies import grpc_exceptions
from sage_flink.common.settings import sage_cache
from sage_flink.platform.native_jar import native_jar, put_on_cluster
from sage_flink.platform.plain_paths import is_plain
from sage_flink.platform.stack.class_archive import archive_options, keep_archive
from sage_flink.platform.stack.java import run_java
from sage_flink.platform.stack.stack_directory import StackDirectory

Role = Literal["jobmanager", "taskmanager"]
TIMEOUT_S = 60
ENTRY: dict[Role, str] = {
    "jobmanager": "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
    "taskmanager": "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
}
SIZES: dict[Role, str] = {
    "jobmanager": "GET_JM_RESOURCE_PARAMS",
    "taskmanager": "GET_TM_RESOURCE_PARAMS",
}
MARK = "BASH_JAVA_UTILS_EXEC_RESULT:"


def command(directory: StackDirectory, role: Role) -> tuple[str, ...]:
    """The command of ``role``; :func:`write` creates the argument file in it."""
    return ("java", f"@{_file(directory, role)}")


def environment(directory: StackDirectory) -> dict[str, str]:
    """Flink's environment variables; the data plane's Python is the first on PATH."""
    places = {"BIN": "bin", "LIB": "lib", "OPT": "opt", "PLUGINS": "plugins"}
    return {
        **{f"FLINK_{name}_DIR": str(directory.pyflink / place) for name, place in places.items()},
        "FLINK_CONF_DIR": str(directory.conf("flink")),
        "PATH": f"{directory.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        **grpc_exceptions("localhost"),
    }


def write(directory: StackDirectory, role: Role, settings: dict[str, Any]) -> None:
    """Write the argument file of ``role``; ``settings`` is the content of config.yaml, flat.

    Raises:
        StackError: Flink rejects its configuration; the message holds Flink's own.
    """
    jvm, dynamic = _sizes(directory, role)
    conf, log = directory.conf("flink"), directory.root / "logs" / "flink" / f"{role}.log"
    log4j = (conf / "log4j-console.properties").as_uri()
    options = (settings.get(f"env.java.opts.{key}", "") for key in ("all", role))
    classes = _all_classes(directory)
    archive: tuple[str, ...] = ()
    if role == "taskmanager":
        keep_class_archive(directory)  # of a stack that `sage down` did not stop
        archive = archive_options(classes, directory.data("flink"))
    arguments = [
        *jvm.split(),
        "-XX:+IgnoreUnrecognizedVMOptions",
        *archive,
        *" ".join(options).split(),
        f"-Dlog.file={log}",
        f"-Dlog4j.configurationFile={log4j}",
        "-classpath",
        classes,
        ENTRY[role],
        *dynamic.split(),
        "--configDir",
        str(conf),
    ]
    _file(directory, role).write_text("\n".join(f'"{argument}"' for argument in arguments))


def keep_class_archive(directory: StackDirectory) -> None:
    """Keep what a TaskManager that has ended wrote of its classes, for the next one."""
    folder = directory.data("flink")
    if any(folder.glob("*.jsa")):
        keep_archive(_all_classes(directory), folder)


def _file(directory: StackDirectory, role: Role) -> Path:
    return directory.conf("flink") / f"{role}.args"


def _classes(directory: StackDirectory) -> str:
    return os.pathsep.join(map(str, sorted((_pyflink(directory) / "lib").glob("*.jar"))))


def _pyflink(directory: StackDirectory) -> Path:
    """PyFlink's own path, which all stacks of an environment share, if Java takes it."""
    own = directory.pyflink.resolve()
    return own if is_plain(own) else directory.pyflink


def _all_classes(directory: StackDirectory) -> str:
    return os.pathsep.join([_classes(directory), *_classes_of_jobs(directory)])


def _classes_of_jobs(directory: StackDirectory) -> list[str]:
    """What every job of sage needs. A job whose cluster has it does not load it again."""
    jar = native_jar(directory.root)
    ours = [put_on_cluster(jar, sage_cache() / "jars")] if jar.exists() else []
    return [
        str(path) for path in (*ours, *(_pyflink(directory) / "opt").glob("flink-python-*.jar"))
    ]


def _sizes(directory: StackDirectory, role: Role) -> tuple[str, str]:
    """Options of the JVM, and settings that Flink computes from the size of the process."""
    classes = os.pathsep.join(
        (str(directory.pyflink / "bin" / "bash-java-utils.jar"), _classes(directory))
    )
    main = "org.apache.flink.runtime.util.bash.BashJavaUtils"
    tool = ("java", "-cp", classes, main, SIZES[role], "--configDir", str(directory.conf("flink")))
    done = run_java(tool, timeout_s=TIMEOUT_S)
    results = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or len(results) != 2:
        raise StackError(
            f"{role}: Flink rejects {directory.conf('flink') / 'config.yaml'}: "
            f"{(done.stderr or done.stdout).strip()[-500:]}"
        )
    jvm, dynamic = (line.removeprefix(MARK) for line in results)
    return jvm, dynamic

"""How Flink's two processes are started: the command line that Flink's scripts would make.

Those scripts start two more JVMs at each start, to read config.yaml and to work out the sizes of
memory: 1.4 s of processor time that a restart after a death would wait for. So Flink is asked
once, when its configuration is written, and the answer lies beside it as a file of arguments.
"""

import os
import subprocess
from pathlib import Path
from typing import Any, Literal

from sage_flink.common.errors import StackError
from sage_flink.platform.stack.home import Home

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


def command(home: Home, role: Role) -> tuple[str, ...]:
    """The command of ``role``; :func:`write` makes the file that it names."""
    return ("java", f"@{_file(home, role)}")


def environment(home: Home) -> dict[str, str]:
    """What Flink reads from its environment; the data plane's Python comes first on PATH."""
    places = {"BIN": "bin", "LIB": "lib", "OPT": "opt", "PLUGINS": "plugins"}
    return {
        **{f"FLINK_{name}_DIR": str(home.pyflink / place) for name, place in places.items()},
        "FLINK_CONF_DIR": str(home.conf("flink")),
        "PATH": f"{home.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


def write(home: Home, role: Role, settings: dict[str, Any]) -> None:
    """Write the arguments of ``role``, whose config.yaml holds ``settings``, flat.

    Raises:
        StackError: Flink does not like its configuration; its words are kept.
    """
    jvm, dynamic = _sizes(home, role)
    conf, log = home.conf("flink"), home.root / "logs" / "flink" / f"{role}.log"
    log4j = (conf / "log4j-console.properties").as_uri()
    options = (settings.get(f"env.java.opts.{key}", "") for key in ("all", role))
    arguments = [
        *jvm.split(),
        "-XX:+IgnoreUnrecognizedVMOptions",
        *" ".join(options).split(),
        f"-Dlog.file={log}",
        f"-Dlog4j.configurationFile={log4j}",
        "-classpath",
        _classes(home),
        ENTRY[role],
        *dynamic.split(),
        "--configDir",
        str(conf),
    ]
    _file(home, role).write_text("\n".join(f'"{argument}"' for argument in arguments))


def _file(home: Home, role: Role) -> Path:
    return home.conf("flink") / f"{role}.args"


def _classes(home: Home) -> str:
    return os.pathsep.join(map(str, sorted((home.pyflink / "lib").glob("*.jar"))))


def _sizes(home: Home, role: Role) -> tuple[str, str]:
    """Options of the JVM, and settings worked out from the process's size."""
    classes = os.pathsep.join((str(home.pyflink / "bin" / "bash-java-utils.jar"), _classes(home)))
    main = "org.apache.flink.runtime.util.bash.BashJavaUtils"
    asked = ("java", "-cp", classes, main, SIZES[role], "--configDir", str(home.conf("flink")))
    done = subprocess.run(asked, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    said = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or len(said) != 2:
        raise StackError(
            f"{role}: Flink does not take {home.conf('flink') / 'config.yaml'}: "
            f"{(done.stderr or done.stdout).strip()[-500:]}"
        )
    jvm, dynamic = (line.removeprefix(MARK) for line in said)
    return jvm, dynamic

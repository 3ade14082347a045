"""Sides of B2 and B3: one function starts each side.

It takes a :class:`~benchmark_sage.workload.Work` with existing topics, and returns a
:class:`RunningSide`: the processes of the side, and how to wait for their end or stop them.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

import sage_flink as sage
from benchmark_sage.peers import sage_job
from benchmark_sage.workload import Work
from sage_flink.common import Settings, StackError
from sage_flink.platform import stack
from sage_flink.platform.flink_rest import ENDED, FlinkRest

JOB_ID = re.compile(r"JobID ([0-9a-f]{32})")
PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class RunningSide:
    """A side that runs. ``wait`` returns its output when it has ended; ``stop`` ends it earlier."""

    processes: Sequence[psutil.Process]
    wait: Callable[[float], str]
    stop: Callable[[], None]


Side = Callable[[Work], RunningSide]


def sage_side(work: Work) -> RunningSide:
    """The sage pipeline as a Flink job on the local stack."""
    return _submit(sage_job.build(work), work)


def sage_native(work: Work) -> RunningSide:
    """The same work declared, so that no step of it runs in Python."""
    return _submit(sage_job.build_native(work), work)


def sage_small_bundles(work: Work) -> RunningSide:
    """The same with bundles of 2 ms: for a trickle, which leaves CPU time."""
    return sage_side(msgspec.structs.replace(work, bundle_s=0.002))


def pyflink_default(work: Work) -> RunningSide:
    """PyFlink's async operator at its defaults, by ``flink run``, on the same cluster."""
    return flink_run("pyflink_async", _json(work))


def flink_run(peer: str, work: str, options: Sequence[str] = ()) -> RunningSide:
    """The job of a script that does not import sage; ``work`` is its argument.

    ``options``: settings of Flink, as ``-Dkey=value``.

    Raises:
        StackError: ``flink run`` started no job.
    """
    settings = Settings.load()
    python = Path(sys.executable)
    flink = next(python.parents[1].glob("lib/python3*/site-packages/pyflink/bin/flink"))
    # The native jar contains the Kafka connector of sql-connector-kafka.
    jar = (settings.home / "lib" / "sage-native.jar").resolve().as_uri()
    command = [
        *("bash", str(flink), "run", "-d", *options, "-pyexec", str(python)),
        *("-pyclientexec", str(python), "-py", str(PEERS / f"{peer}.py")),
        *("--connector", jar, "--work", work),
    ]
    env = {
        **os.environ,
        "FLINK_CONF_DIR": str(settings.home / "conf" / "flink"),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    found = JOB_ID.search(done.stdout)
    if found is None:
        raise StackError(f"flink run started no job: {(done.stdout + done.stderr)[-500:]}")
    return running_job(settings, found[1])


def limit(work: Work) -> RunningSide:
    """aiohttp without Kafka and Flink."""
    return _script("raw_aiohttp", work)


def asyncio_consumer(work: Work) -> RunningSide:
    """aiokafka with auto-commit."""
    return _script("asyncio_consumer", work)


def _submit(graph: sage.flow.Graph, work: Work) -> RunningSide:
    settings = Settings.load()
    pool = settings.model_copy(update={"gateway_url": work.url})
    options = sage_job.options(work)
    job_id = sage.flow.submit(graph, name=work.name, options=options, settings=pool)
    return running_job(settings, job_id)


def running_job(settings: Settings, job_id: str) -> RunningSide:
    """The job, on the TaskManager of the local stack."""

    def wait(timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        with FlinkRest(settings.flink_url) as rest:
            while (state := rest.job(job_id).state) not in ENDED:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"job {job_id}: {state} after {timeout_s:g} s")
                time.sleep(0.2)
        if state != "FINISHED":
            raise StackError(f"job {job_id} ended {state}; see {settings.flink_url}")
        return ""

    def stop() -> None:
        with FlinkRest(settings.flink_url) as rest:
            if rest.job(job_id).state not in ENDED:
                rest.cancel(job_id)

    return RunningSide(stack.processes(settings.home, "taskmanager"), wait, stop)


def _script(peer: str, work: Work) -> RunningSide:
    return running_script(peer, sys.executable, "-m", f"benchmark_sage.peers.{peer}", _json(work))


def running_script(peer: str, *command: str) -> RunningSide:
    """The process of a peer, which ends by itself."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait(timeout_s: float) -> str:
        out, errors = process.communicate(timeout=timeout_s)
        if process.returncode:
            raise StackError(f"{peer} ended with {process.returncode}: {errors.strip()[-500:]}")
        return out

    def stop() -> None:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)

    return RunningSide([psutil.Process(process.pid)], wait, stop)


def _json(work: Work) -> str:
    return msgspec.json.encode(work).decode()

"""Submission of a graph as a Flink job: check, compile, compare with the savepoint, send."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from py4j.protocol import Py4JJavaError
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from sage_flink.common.errors import PipelineError, StackError
from sage_flink.common.proxies import bypass_grpc_proxy
from sage_flink.common.settings import Settings
from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.check import check
from sage_flink.flow.deletes import in_order
from sage_flink.flow.flink.compile import compile_graph
from sage_flink.flow.flink.local_modules import sent_by_value
from sage_flink.flow.flink.native_functions import has_slow_step
from sage_flink.flow.flink.savepoint_state import (
    read_savepoint,
    require_all_restored,
    stateful_uids,
)
from sage_flink.flow.flink.step_options import parallelism_of_steps
from sage_flink.flow.graph import (
    FlatMap,
    Graph,
    Node,
    Read,
    Write,
    for_job,
    require_graph,
)
from sage_flink.flow.ports import Prepared
from sage_flink.flow.replay import one_transaction
from sage_flink.flow.stateful.keyed_nodes import Fold
from sage_flink.platform.cluster import INSIDE_FLINK_RUN, FlinkOptions, environment
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.savepoints import (
    StateFolders,
    delete_old_checkpoints,
    folders_of,
    resolve_state,
)


@contextmanager
def one_java_thread() -> Iterator[None]:
    """Pause the garbage collector, so that Java serves this thread by one thread of its own.

    Java serves each connection of py4j on its own thread, and PyFlink sets the class loader of one
    of them. If the collector frees a Java object on another Python thread at that moment, py4j
    opens a second connection; the next call may use it, and does not find our classes.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@one_java_thread()
def submit(
    graph: Graph,
    *,
    name: str,
    options: FlinkOptions | None = None,
    settings: Settings | None = None,
    job: str = "",
    in_one_transaction: bool = False,
) -> str:
    """Start ``graph`` as a Flink job called ``name``; returns the job's id.

    Inside ``flink run`` the job is sent to that command's cluster, else to ``settings.flink_url``.
    With ``options.savepoint`` it resumes from that state. Request ids, Kafka transactions and what
    a source or sink names ``{job}`` follow the job's name, so a job that keeps its name keeps them;
    in a replay, request ids, dead letters and ``{job}`` belong to the replayed ``job``.
    ``in_one_transaction`` buffers the output of the native sinks until the end of the input and
    writes it in one transaction: either all of it becomes visible or no part of it.

    Raises:
        PipelineError: the graph cannot run on Flink, or a job of this name runs, or state would be
            lost; no job was started.
        ConfigError: the native jar or the savepoint is missing, or ``flink_url`` is not an address.
        StackError: the cluster rejected the job.
        StoreUnavailable: a server that the job needs, such as Kafka, does not respond.
    """
    settings, options = settings or Settings.load(), options or FlinkOptions()
    bypass_grpc_proxy("http://localhost")  # for the workers of a cluster in this process
    with sent_by_value() if _runs_elsewhere(options) else nullcontext():
        graph = for_job(require_graph(graph), job or name)
        of_steps = parallelism_of_steps(graph, options.steps)
        graph = in_order(check(graph, "flink", parallelism=options.parallelism, of_steps=of_steps))
        if in_one_transaction:
            one_transaction(graph)
        options = _with_state_paths(options, name, settings)
        names = {"job": job or name, "run": name}
        env = _environment(graph, options, settings, names, in_one_transaction)
        # Not env.execute_async: the plan that is checked is the plan that is sent.
        plan = env._generate_stream_graph(clear_transformations=True, job_name=name)
        _need_state_fits(plan, options)
        _prepare(graph)
        return _execute(env, plan, name, settings)


def _environment(
    graph: Graph,
    options: FlinkOptions,
    settings: Settings,
    names: Mapping[str, str],
    in_one_transaction: bool,
) -> StreamExecutionEnvironment:
    """With the operators of ``graph``."""
    env = environment(options, settings)
    # Such a job sends every record to the next task at once. Threads that do it every few
    # milliseconds, one for each task, took 0.3 of a core in a job of twelve steps, and 12,000 calls
    # took 11 and 21 % longer in two pairs of runs. Other jobs have records enough to fill buffers.
    if has_slow_step(graph):
        env.set_buffer_timeout(0)
    compile_graph(
        graph, env, options, settings=settings, in_one_transaction=in_one_transaction, **names
    )
    return env


def _runs_elsewhere(options: FlinkOptions) -> bool:
    """Whether the job is sent to a cluster by its REST address."""
    return options.target == "remote" and not INSIDE_FLINK_RUN


def _execute(env: StreamExecutionEnvironment, plan: Any, name: str, settings: Settings) -> str:
    try:
        return str(env._j_stream_execution_environment.executeAsync(plan).getJobID().toString())
    except Py4JJavaError as error:
        raise StackError(
            f"Flink at {settings.flink_url} did not take job {name!r}: {_cause(error)}; "
            "see `sage ps` and `sage logs jobmanager`"
        ) from error


def _with_state_paths(options: FlinkOptions, name: str, settings: Settings) -> FlinkOptions:
    """The options with the job's own state folder and the savepoint's URI.

    Only a cluster that is reached by its REST address reports its folders.
    """
    if not _runs_elsewhere(options):
        nowhere = StateFolders("", "")
        return replace(options, savepoint=resolve_state(options.savepoint, name, nowhere))
    with FlinkRest(settings.flink_url) as rest:
        _refuse_second_job(name, rest)
        folders = folders_of(name, rest)
        uri = resolve_state(options.savepoint, name, folders)
        delete_old_checkpoints(rest, name)
    return replace(options, savepoint=uri, checkpoints=folders.checkpoints)


def _need_state_fits(plan: Any, options: FlinkOptions) -> None:
    # `flink run -s` sets a savepoint as well: the plan has it in both cases.
    path = plan.getSavepointRestoreSettings().getRestorePath()
    jvm = get_gateway().jvm
    states = read_savepoint(jvm, path) if path else []
    if path or options.drop_state:
        uids = stateful_uids(jvm, plan)
        require_all_restored(states, uids, path=str(path), drop=options.drop_state)


def _prepare(graph: Graph) -> None:
    for spec in (*map(_spec, graph.nodes), graph.dead_letters):
        if isinstance(spec, Prepared):
            spec.prepare()


def _spec(node: Node) -> object:
    """The source, sink or function of a step, which may need a resource."""
    match node:
        case Read(source=source):
            return source
        case Write(sink=sink):
            return sink
        case FlatMap(function=function) | MapBatches(function=function) | Fold(function=function):
            return function
        case _:
            return None


def _refuse_second_job(name: str, rest: FlinkRest) -> None:
    """Two jobs of one name would abort each other's Kafka transactions."""
    if job := rest.running(name):
        raise PipelineError(
            f"job {name!r} runs already ({job.id}); stop it with `sage jobs stop {name}`, "
            "or submit under another name"
        )


def _cause(error: Py4JJavaError) -> str:
    """The innermost message of a Java exception."""
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    message = str(cause.getMessage() or cause.toString())
    # An error of the REST server carries the server's whole stack trace as its text.
    causes = [line for line in message.splitlines() if line.startswith("Caused by: ")]
    return (causes[-1].removeprefix("Caused by: ") if causes else message)[:500]

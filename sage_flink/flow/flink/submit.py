"""A graph becomes a running Flink job: checked, compiled, its state looked at, then sent."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from py4j.protocol import Py4JJavaError
from pyflink.java_gateway import get_gateway

from sage_flink.common.errors import PipelineError, StackError
from sage_flink.common.settings import Settings
from sage_flink.flow.check import check
from sage_flink.flow.deletes import in_order
from sage_flink.flow.flink.compile import compile_graph
from sage_flink.flow.flink.savepoint_state import need_all_taken_up, planned, saved
from sage_flink.flow.graph import Graph, Read, Write
from sage_flink.flow.ports import Prepared
from sage_flink.flow.replay import one_transaction
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
    """Hold the garbage collector back, so that Java answers from one thread.

    Java serves every connection of py4j by a thread of its own, and PyFlink tells one of them where
    our classes are. A collector that, on some other Python thread, lets go of a Java object just
    then opens a second connection; the next question may take that one, and finds no such class.
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
    at_once: bool = False,
) -> str:
    """Start ``graph`` as a Flink job called ``name``; its job id comes back.

    Inside ``flink run`` the job goes where that command points, else to ``settings.flink_url``.
    With ``options.savepoint`` it goes on from that state, under the ids of the run that left it
    where ``name`` is the same: request ids and Kafka transactions follow the job's name.
    ``job`` is the job whose request ids it keeps and whose letters it writes: itself, unless it
    replays another's. ``at_once`` holds everything for the native sinks back until the sources end
    and writes it in one transaction: all of it is seen, or nothing.

    Raises:
        PipelineError: the graph cannot run on Flink, or a job of this name runs, or state would be
            lost; nothing was started.
        ConfigError: the native jar is missing, or ``flink_url`` is no address,
            or there is no such savepoint.
        StackError: the cluster does not take the job.
        StoreUnavailable: a server that it needs is away, Kafka say; nothing was started.
    """
    settings = settings or Settings.load()
    options = options or FlinkOptions()
    graph = in_order(check(graph, "flink", parallelism=options.parallelism))
    if at_once:
        one_transaction(graph)
    options = _placed(options, name, settings)
    env = environment(options, settings)
    compile_graph(graph, env, job=job or name, settings=settings, run=name, at_once=at_once)
    # Not env.execute_async: what is looked at is what is sent.
    plan = env._generate_stream_graph(clear_transformations=True, job_name=name)
    _need_state_fits(plan, options)
    _prepare(graph)
    try:
        return str(env._j_stream_execution_environment.executeAsync(plan).getJobID().toString())
    except Py4JJavaError as error:
        raise StackError(
            f"Flink at {settings.flink_url} did not take job {name!r}: {_cause(error)}; "
            "see `sage ps` and `sage logs jobmanager`"
        ) from error


def _placed(options: FlinkOptions, name: str, settings: Settings) -> FlinkOptions:
    """The options with the job's own state folder and the savepoint's URI in them.

    Only a cluster that is asked by its REST address says where its folders are.
    """
    if options.target != "remote" or INSIDE_FLINK_RUN:
        nowhere = StateFolders("", "")
        return replace(options, savepoint=resolve_state(options.savepoint, name, nowhere))
    with FlinkRest(settings.flink_url) as rest:
        _alone(name, rest)
        folders = folders_of(name, rest)
        uri = resolve_state(options.savepoint, name, folders)
        delete_old_checkpoints(rest, name)
    return replace(options, savepoint=uri, checkpoints=folders.checkpoints)


def _need_state_fits(plan: Any, options: FlinkOptions) -> None:
    # `flink run -s` names one as well: the plan knows, whoever did.
    path = plan.getSavepointRestoreSettings().getRestorePath()
    jvm = get_gateway().jvm
    held = saved(jvm, path) if path else []
    if path or options.drop_state:
        need_all_taken_up(held, planned(jvm, plan), path=str(path), drop=options.drop_state)


def _prepare(graph: Graph) -> None:
    ends = [
        node.source if isinstance(node, Read) else node.sink
        for node in graph.nodes
        if isinstance(node, Read | Write)
    ]
    for spec in (*ends, graph.dead_letters):
        if isinstance(spec, Prepared):
            spec.prepare()


def _alone(name: str, rest: FlinkRest) -> None:
    """Refuse a second job of this name: the two would end each other's Kafka transactions."""
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
    said = [line for line in message.splitlines() if line.startswith("Caused by: ")]
    return (said[-1].removeprefix("Caused by: ") if said else message)[:500]

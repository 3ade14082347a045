"""Whether the state of an earlier run fits a pipeline: state follows the names of the steps.

Flink finds the state of an operator by its uid, which is the step's name. Renaming a step that
holds state (source, call, batch, Kafka sink) therefore loses it: questions in flight are never
asked, offsets start anew. Flink would say so with a hash, after the job was sent; this is found
before anything starts. Python steps hold no state and may come and go.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError

from sage_flink.common.errors import ConfigError, PipelineError

#: The operators that a step can have besides its own are called ``<step>.<part>``.
PARTS = frozenset({"account", "batch", "request", "answer", "tally"})
#: What Flink puts before the uid of the second half of a sink.
COMMITTER = "Sink Committer: "
#: Python operators: whatever a savepoint holds under their uid, they do not read it.
#: Parts of the class names of operators that hold nothing between two checkpoints.
STATELESS = (".operators.python.", "org.sage.flink.counters.RecordCounterOperator")


@dataclass(frozen=True, slots=True)
class Held:
    """The state of one operator; ``ended`` means that it will never do anything again."""

    uid: str
    size_bytes: int
    ended: bool = False


def step_of(uid: str) -> str:
    """The step that the operator belongs to.

    >>> [step_of(uid) for uid in ("vectors.batch", "Sink Committer: answers", "v1.5")]
    ['vectors', 'answers', 'v1.5']
    """
    uid = uid.removeprefix(COMMITTER)
    step, _, part = uid.rpartition(".")
    return step if step and part in PARTS else uid


def need_all_taken_up(
    held: Iterable[Held], planned: Collection[str], *, path: str, drop: Collection[str] = ()
) -> None:
    """Refuse to lose state: every operator in ``held`` has its uid in ``planned``, or is dropped.

    ``planned`` are the uids of the new job's operators that can hold state, ``drop`` the steps
    whose state may go.

    Raises:
        PipelineError: it names the steps whose state would be lost, those that are new, and what
            to do. Or ``drop`` names a step that loses nothing. Or the state is of a drained run.
    """
    held = list(held)
    where = f"savepoint {path}"
    if held and all(one.ended for one in held):
        raise PipelineError(
            f"{where}: is of a drained job, whose sources have ended; submit without it"
        )
    lost: dict[str, int] = {}
    for one in held:
        if one.uid not in planned:
            lost[step_of(one.uid)] = lost.get(step_of(one.uid), 0) + one.size_bytes
    if unlike := sorted(set(drop) - set(lost)):
        raise PipelineError(
            f"{where}: no state of {_named(unlike)} would be lost, so there is none to drop; "
            f"would be lost: {_named(lost) or 'none'}"
        )
    if refused := sorted(set(lost) - set(drop)):
        uids = {one.uid for one in held}
        new = sorted({step_of(uid) for uid in planned if uid not in uids} - set(lost))
        sizes = ", ".join(f"{step!r} ({lost[step]} bytes)" for step in refused)
        options = " ".join(f"--drop-state {step!r}" for step in refused)
        raise PipelineError(
            f"{where}: it holds state of {sizes}, which the pipeline has not as a step with "
            f"state; steps with state that are new: {_named(new) or 'none'}. State follows the "
            f"step's name: give the step its old name, or give its state up: {options}"
        )


def saved(jvm: Any, path: str) -> list[Held]:
    """The operators that have state in the savepoint or checkpoint at the URI ``path``.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    try:
        file = jvm.org.apache.flink.core.fs.Path(path, "_metadata")
        with_data = jvm.java.io.DataInputStream(file.getFileSystem().open(file))
        try:
            loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
            checkpoints = jvm.org.apache.flink.runtime.checkpoint.Checkpoints
            metadata = checkpoints.loadCheckpointMetadata(with_data, loader, path)
        finally:
            with_data.close()
    except Py4JJavaError as error:
        raise ConfigError(
            f"no savepoint can be read at {path} ({error.java_exception.getMessage()}); "
            "`sage jobs savepoints JOB` lists those there are"
        ) from error
    operators = jvm.java.util.ArrayList(metadata.getOperatorStates())
    return [_held(state) for state in operators if _holds(jvm, state)]


def planned(jvm: Any, stream_graph: Any) -> set[str]:
    """The uids of the operators of ``stream_graph`` that can hold state."""
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    return {
        node.getTransformationUID()
        for node in jvm.java.util.ArrayList(stream_graph.getStreamNodes())
        if node.getTransformationUID() and not _is_stateless(node, loader)
    }


def _is_stateless(node: Any, loader: Any) -> bool:
    name = str(node.getOperatorFactory().getStreamOperatorClass(loader).getName())
    return any(part in name for part in STATELESS)


def _holds(jvm: Any, state: Any) -> bool:
    # Without a uid Flink itself is the judge: none of our operators lacks one.
    if not state.getOperatorUid().isPresent():
        return False
    subtasks = jvm.java.util.ArrayList(state.getStates())
    coordinated = state.getCoordinatorState() is not None
    return coordinated or state.isFullyFinished() or any(one.hasState() for one in subtasks)


def _held(state: Any) -> Held:
    return Held(state.getOperatorUid().get(), state.getStateSize(), state.isFullyFinished())


def _named(steps: Iterable[str]) -> str:
    return ", ".join(map(repr, steps))

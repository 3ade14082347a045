"""Compares a savepoint with a pipeline: state follows the names of the steps.

Flink finds the state of an operator by its uid, which is the step's name. Renaming a step that
has state (source, call, batch, Kafka sink) therefore loses it: calls in flight are dropped and
offsets start from the beginning. Flink would report that with a hash, after the job was sent; this
check runs before the job starts. Python steps have no state and can be added and removed.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError

from sage_flink.common.errors import ConfigError, PipelineError

#: Additional operators of a step are called ``<step>.<part>``.
PARTS = frozenset(
    [
        "account",
        "answer",
        "batch",
        "input",
        "json",
        "late",
        "left-input",
        "limits",
        "request",
        "right-input",
        "tally",
        "watermark",
    ]
)
#: Flink's prefix of the uid of the second half of a sink.
COMMITTER = "Sink Committer: "
#: Parts of the class names of operators that read no state from a savepoint.
STATELESS = (
    ".operators.python.",
    "org.sage.flink.python.",
    "org.sage.flink.call.CallRequestOperator",
    "org.sage.flink.call.CompletionAnswerOperator",
    "org.sage.flink.call.FieldAnswerOperator",
    "org.sage.flink.connector.TopicLimitsOperator",
    "org.sage.flink.counters.RecordCounterOperator",
    "org.sage.flink.connector.JsonDecodeOperator",
    "org.sage.flink.connector.JsonEncodeOperator",
    "org.sage.flink.fields.",
    "org.sage.flink.keyed.KeyByOperator",
    "org.sage.flink.keyed.KeyedInputOperator",
)


@dataclass(frozen=True, slots=True)
class OperatorState:
    """The state of one operator in a savepoint; ``ended`` means that its input had ended."""

    uid: str
    size_bytes: int
    ended: bool = False


def step_of(uid: str) -> str:
    """The step of the operator.

    >>> [step_of(uid) for uid in ("vectors.batch", "Sink Committer: answers", "v1.5")]
    ['vectors', 'answers', 'v1.5']
    """
    uid = uid.removeprefix(COMMITTER)
    step, _, part = uid.rpartition(".")
    return step if step and part in PARTS else uid


def operator_name(uid: str) -> str:
    """The name of the operator in Flink's web UI, in Flink's own form for parts of a step.

    >>> [operator_name(uid) for uid in ("embed.request", "vectors.batch", "embed")]
    ['embed: Request', 'vectors: Batch', 'embed']
    """
    step = step_of(uid)
    return step if step == uid else f"{step}: {uid.rpartition('.')[2].capitalize()}"


def require_all_restored(
    states: Iterable[OperatorState], uids: Collection[str], *, path: str, drop: Collection[str] = ()
) -> None:
    """Refuse to lose state: every operator of ``states`` is in ``uids``, or its step in ``drop``.

    ``uids`` are those of the new job's operators that can have state, ``drop`` the steps that
    may lose theirs.

    Raises:
        PipelineError: state would be lost (the message names its steps, the new steps, and the
            next action), or ``drop`` names a step without lost state, or the savepoint is that of
            a drained job.
    """
    states = list(states)
    where = f"savepoint {path}"
    if states and all(state.ended for state in states):
        raise PipelineError(
            f"{where}: is of a drained job, whose sources have ended; submit without it"
        )
    lost: dict[str, int] = {}
    for state in states:
        if state.uid not in uids:
            lost[step_of(state.uid)] = lost.get(step_of(state.uid), 0) + state.size_bytes
    if unlike := sorted(set(drop) - set(lost)):
        raise PipelineError(
            f"{where}: no state of {_quote(unlike)} would be lost, so there is none to drop; "
            f"would be lost: {_quote(lost) or 'none'}"
        )
    if refused := sorted(set(lost) - set(drop)):
        before = {state.uid for state in states}
        new = sorted({step_of(uid) for uid in uids if uid not in before} - set(lost))
        sizes = ", ".join(f"{step!r} ({lost[step]} bytes)" for step in refused)
        options = " ".join(f"--drop-state {step!r}" for step in refused)
        raise PipelineError(
            f"{where}: it holds state of {sizes}, which the pipeline has not as a step with "
            f"state; steps with state that are new: {_quote(new) or 'none'}. State follows the "
            f"step's name: give the step its old name, or give its state up: {options}"
        )


def read_savepoint(jvm: Any, path: str) -> list[OperatorState]:
    """The operators with state in the savepoint or checkpoint at the URI ``path``.

    Raises:
        ConfigError: it does not exist, or cannot be read.
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
    return [_operator_state(state) for state in operators if _has_state(jvm, state)]


def stateful_uids(jvm: Any, stream_graph: Any) -> set[str]:
    """The uids of the operators of ``stream_graph`` that can have state."""
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    return {
        node.getTransformationUID()
        for node in jvm.java.util.ArrayList(stream_graph.getStreamNodes())
        if node.getTransformationUID() and not _is_stateless(node, loader)
    }


def _is_stateless(node: Any, loader: Any) -> bool:
    name = str(node.getOperatorFactory().getStreamOperatorClass(loader).getName())
    return any(part in name for part in STATELESS)


def _has_state(jvm: Any, state: Any) -> bool:
    # All of our operators have a uid; Flink itself checks those without.
    if not state.getOperatorUid().isPresent():
        return False
    subtasks = jvm.java.util.ArrayList(state.getStates())
    coordinated = state.getCoordinatorState() is not None
    return coordinated or state.isFullyFinished() or any(subtask.hasState() for subtask in subtasks)


def _operator_state(state: Any) -> OperatorState:
    return OperatorState(
        state.getOperatorUid().get(), state.getStateSize(), state.isFullyFinished()
    )


def _quote(steps: Iterable[str]) -> str:
    return ", ".join(map(repr, steps))

"""Options of single steps: parallelism, key groups and slots of the operators of a step."""

from collections.abc import Iterator, Mapping
from typing import Any

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.util.java_utils import get_field_value

from sage_flink.common.errors import PipelineError
from sage_flink.flow.flink.savepoint_state import step_of
from sage_flink.flow.graph import Graph
from sage_flink.platform.cluster import StepOptions


def parallelism_of_steps(graph: Graph, steps: Mapping[str, StepOptions]) -> dict[str, int]:
    """The nodes with a parallelism of their own; a batch has that of its sink.

    Raises:
        PipelineError: one of ``steps`` is not in the graph; the message names those there are.
    """
    if unknown := sorted(steps.keys() - graph.by_name.keys()):
        known = ", ".join(map(repr, graph.by_name))
        raise PipelineError(f"options: the pipeline has no step {unknown[0]!r}; it has {known}")
    of_nodes = {name: steps[step_of(name)] for name in graph.by_name if step_of(name) in steps}
    return {name: options.parallelism for name, options in of_nodes.items() if options.parallelism}


def apply_step_options(env: StreamExecutionEnvironment, steps: Mapping[str, StepOptions]) -> None:
    """Set the options of the operators of each step, before the plan is built from them."""
    if not steps:
        return
    has_groups = any(options.slot_sharing_group for options in steps.values())
    for operator in _operators(env):
        options = _options(operator.getUid(), steps)
        if has_groups:  # an operator without a group would be in that of its input
            operator.setSlotSharingGroup(options.slot_sharing_group or "default")
        if operator.getMaxParallelism() == 1:
            continue  # it cannot be parallel
        if options.max_parallelism:
            operator.setMaxParallelism(options.max_parallelism)
        if options.parallelism:
            operator.setParallelism(options.parallelism)


def _options(uid: str | None, steps: Mapping[str, StepOptions]) -> StepOptions:
    """The options of the step of an operator, which may be a part of a part of it."""
    name, step = "", uid or ""
    while step != name:
        if step in steps:
            return steps[step]
        name, step = step, step_of(step)
    return StepOptions()


def _operators(env: StreamExecutionEnvironment) -> Iterator[Any]:
    """The job's transformations, from its ends to its sources, each once."""
    ends = get_field_value(env._j_stream_execution_environment, "transformations")
    waiting, seen = list(ends), set[int]()
    while waiting:
        one = waiting.pop()
        if one.getId() in seen:
            continue
        seen.add(one.getId())
        yield one
        waiting.extend(one.getInputs())

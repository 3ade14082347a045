"""Names of steps: the rules that every node checks."""

from typing import Any

from sage_flink.common.errors import PipelineError

#: The name of the step that a target adds for failed records.
DEAD_LETTERS = "dead-letters"


def check_name(name: Any) -> None:
    """Check the name of a step.

    Raises:
        PipelineError: it is no name; the message says why.
    """
    if not isinstance(name, str) or not (0 < len(name) <= 100) or name != name.strip():
        raise PipelineError(f"step name: must be 1 to 100 characters of text, got {name!r:.200}")
    if not name.isprintable():
        raise PipelineError(f"step name: must be on one line, without control signs, got {name!r}")
    if name == DEAD_LETTERS:
        raise PipelineError(f"step name: {name!r} is the step for failed records; take another")

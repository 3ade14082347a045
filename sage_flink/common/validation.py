"""Validation of the arguments of specs: one sentence in one form, for every error.

>>> require(False, "step 'embed'", "spec", "a call such as sage.embed(...)", "chat")
Traceback (most recent call last):
sage_flink.common.errors.PipelineError: step 'embed': spec must be a call such as sage.embed(...), \
got 'chat'
"""

from sage_flink.common.errors import PipelineError, SageError


def require(
    condition: bool,
    where: str,
    field: str,
    required: str,
    got: object,
    error: type[SageError] = PipelineError,
) -> None:
    """Check that ``condition`` holds.

    Raises:
        PipelineError: it does not (or ``error``): the place, the requirement, the value found.
    """
    if not condition:
        raise error(f"{where}: {field} must be {required}, got {got!r:.200}")


def require_whole_number(where: str, field: str, got: object, least: int = 1) -> None:
    """Check that ``got`` is a whole number and at least ``least``.

    Raises:
        PipelineError: it is not.
    """
    whole = isinstance(got, int) and not isinstance(got, bool)
    require(whole, where, field, "a whole number", got)
    require(isinstance(got, int) and got >= least, where, field, f"at least {least}", got)


def require_name(where: str, field: str, got: object) -> None:
    """Check that ``got`` is text that is not empty.

    Raises:
        PipelineError: it is not.
    """
    require(isinstance(got, str) and bool(got.strip()), where, field, "a name", got)

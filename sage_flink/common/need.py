"""Checks of arguments, for specs that look at their own fields: one sentence, one shape.

>>> need(False, "step 'embed'", "spec", "a call such as sage.embed(...)", "chat")
Traceback (most recent call last):
sage_flink.common.errors.PipelineError: step 'embed': spec must be a call such as sage.embed(...), \
got 'chat'
"""

from sage_flink.common.errors import PipelineError, SageError


def need(
    condition: bool,
    where: str,
    field: str,
    required: str,
    got: object,
    error: type[SageError] = PipelineError,
) -> None:
    """Nothing when ``condition`` holds.

    Raises:
        PipelineError: it does not (or ``error``): where, what was required, what came.
    """
    if not condition:
        raise error(f"{where}: {field} must be {required}, got {got!r:.200}")


def need_whole(where: str, field: str, got: object, least: int = 1) -> None:
    """Nothing when ``got`` is a whole number and at least ``least``.

    Raises:
        PipelineError: it is not.
    """
    whole = isinstance(got, int) and not isinstance(got, bool)
    need(whole, where, field, "a whole number", got)
    need(isinstance(got, int) and got >= least, where, field, f"at least {least}", got)


def need_name(where: str, field: str, got: object) -> None:
    """Nothing when ``got`` is a text that is not empty.

    Raises:
        PipelineError: it is not.
    """
    need(isinstance(got, str) and bool(got.strip()), where, field, "a name", got)

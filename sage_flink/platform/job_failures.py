"""Failures of a Flink job, from its exception history: which step failed, why, how often."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

REASON_CHARS_MAX = 300
#: The name of every record counter in Flink's web UI.
COUNT = "Count"
#: For this long a job that failed is of interest, and a failure of a running job is a warning.
FAILED_S = 3600.0
RESTARTED_S = 600.0
_CAUSE = "Caused by: "
#: The last line of a Python traceback, which Flink has inside of the text of a Java exception.
_PYTHON_ERROR = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Unavailable|Exit)\b.*$", re.M)
#: What Flink and sage add to the name of a step, such as ``: Writer`` and ``: Request``.
_PART = re.compile(r"^Source: |: \w+$")
#: Subtask and attempt in the name of a task, such as `` (1/2)#3``.
_SUBTASK = re.compile(r" ?(?:- execution #\d+|\(\d+/\d+\)(?:#\d+)?)")


class JobFailure(NamedTuple):
    """The newest failure of a job. ``times``: how many there were, at most a hundred are known.

    ``step``: the names of the steps that share the task; empty if no task failed.
    """

    at_ms: int
    step: str
    reason: str
    times: int

    def __str__(self) -> str:
        """Where and why, such as ``step ask: PipelineError: no such word``."""
        return f"step {self.step}: {self.reason}" if self.step else self.reason


def newest_failure(history: Sequence[Mapping[str, Any]]) -> JobFailure | None:
    """The newest of the entries of ``exceptionHistory``; None without any."""
    if not history:
        return None
    newest = max(history, key=lambda entry: int(entry["timestamp"]))
    step = ", ".join(steps_of(str(newest.get("taskName") or "")))
    reason = root_cause(str(newest.get("stacktrace") or newest.get("exceptionName") or ""))
    return JobFailure(int(newest["timestamp"]), step, reason, len(history))


def steps_of(task: str) -> list[str]:
    """The author's steps in a task, from its name.

    >>> steps_of("Source: texts -> Count -> split, embed: Request -> (Count, vectors) (1/2)#3")
    ['texts', 'split', 'embed', 'vectors']
    """
    names = (_PART.sub("", one.strip()) for one in re.split(r" -> |[(),]", _SUBTASK.sub("", task)))
    return [name for name in dict.fromkeys(names) if name and name != COUNT]


def checkpoint_failure(checkpoints: Mapping[str, Any]) -> str:
    """Why a job's newest checkpoint failed; empty when it did not fail or does not exist.

    A job continues when its checkpoints fail, but its exactly-once output stays invisible.
    """
    latest = checkpoints.get("latest") or {}
    failed, completed = latest.get("failed"), latest.get("completed")
    if not failed or (completed and completed["id"] > failed["id"]):
        return ""
    return str(failed.get("failure_message") or "a checkpoint failed")[:REASON_CHARS_MAX]


def root_cause(stacktrace: str) -> str:
    """The innermost error of a stack trace, on one line.

    >>> root_cause("java.lang.Exception: outer\\nCaused by: java.io.IOException: no disk")
    'java.io.IOException: no disk'
    """
    *_, innermost = stacktrace.split(_CAUSE)
    if "Traceback (most recent call last)" in innermost:
        errors = _PYTHON_ERROR.findall(innermost.partition("Traceback (most recent call last)")[2])
        innermost = errors[-1] if errors else innermost
    lines = (line.strip() for line in innermost.splitlines())
    first = next((line for line in lines if line and not line.startswith("at ")), "unknown")
    return " ".join(first.split())[:REASON_CHARS_MAX]

"""One tree of errors, grouped by what the caller can do about them.

::

    SageError
    ├── PipelineError       fix the pipeline (found before anything starts)
    ├── ConfigError         fix a setting, a file or a command line
    │   └── NotFound          the object it names does not exist
    ├── Rejected            this one record cannot be processed: dead-letter it
    ├── Retryable           the same call may succeed later
    │   ├── PoolTimeout       no answer in time
    │   ├── PoolError         the model pool answered with an error
    │   │   └── PoolAway            no connection to it: no request was sent
    │   └── StoreUnavailable  a store does not take writes now
    └── OperatorNeeded      a person has to look
        └── StackError        a server of the local stack is missing or dead

A message names the place, the requirement, the value found, and the next step.
"""


class SageError(Exception):
    """Root of every error that sage raises on purpose."""


class PipelineError(SageError):
    """The pipeline cannot run as written; no job was started."""


class ConfigError(SageError):
    """A setting, file or argument is wrong; the message names it."""


class NotFound(ConfigError):  # noqa: N818
    """The object that the call names does not exist; the message lists those that do."""


class Rejected(SageError):  # noqa: N818 - about a record, not a fault of the program
    """Raised by a step's function: the record becomes a dead letter with this reason."""


class Retryable(SageError):  # noqa: N818
    """The same call may succeed later."""


class PoolTimeout(Retryable):
    """No answer from the model pool within the time allowed."""


class PoolError(Retryable):
    """The model pool answered with an error.

    ``status`` is the HTTP status, 0 when there was no answer at all. ``code`` is the error's, such
    as ``context_length_exceeded``, empty without one.
    """

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class PoolAway(PoolError):  # noqa: N818
    """There is no connection to the model pool: no request was sent."""


class StoreUnavailable(Retryable):
    """A vector or time-series store does not take requests now."""


class OperatorNeeded(SageError):  # noqa: N818
    """The program cannot continue; the message names what a person should do."""


class StackError(OperatorNeeded):
    """A server of the local stack is missing, dead or unhealthy."""

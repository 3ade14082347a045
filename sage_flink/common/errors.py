"""One tree of errors, grouped by what the caller can do about them.

::

    SageError
    ├── PipelineError       fix the pipeline (found before anything starts)
    ├── ConfigError         fix a setting, a file or a command line
    │   └── NotFound          what it names is not there
    ├── Rejected            this one record cannot be processed: dead-letter it
    ├── Retryable           the same call may succeed later
    │   ├── PoolTimeout       no answer in time
    │   ├── PoolError         the model pool answered with an error
    │   │   └── PoolAway            no connection to it: nothing was asked
    │   └── StoreUnavailable  a store does not take writes now
    └── OperatorNeeded      a person has to look
        └── StackError        a server of the local stack is missing or dead

A message says where, what was required, what came, and the next step.
"""


class SageError(Exception):
    """Root of every error that sage raises on purpose."""


class PipelineError(SageError):
    """The pipeline cannot run as written; nothing was started."""


class ConfigError(SageError):
    """A setting, file or argument is wrong; the message names it."""


class NotFound(ConfigError):  # noqa: N818
    """What the call names is not there; the message says what is."""


class Rejected(SageError):  # noqa: N818 - a verdict on a record, not a fault of the program
    """Raised by a step's function: this record goes to the dead-letter topic with this reason."""


class Retryable(SageError):  # noqa: N818
    """The same call may succeed later."""


class PoolTimeout(Retryable):
    """No answer from the model pool within the time allowed."""


class PoolError(Retryable):
    """The model pool answered with an error.

    ``status`` is the HTTP status, 0 when there was no answer at all.
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class PoolAway(PoolError):  # noqa: N818
    """There is no connection to the model pool: nothing was asked."""


class StoreUnavailable(Retryable):
    """A vector or time-series store does not take requests now."""


class OperatorNeeded(SageError):  # noqa: N818
    """Nothing the program can do; the message says what a person should do."""


class StackError(OperatorNeeded):
    """A server of the local stack is missing, dead or unhealthy."""

"""Loading of the stages of a worker, one after the other.

A worker loads each of its stages in a thread of its own. A thread that imports a package whose
``__init__`` imports a module of it, and one that imports that module, may wait for each other.
Python ends one of them with an error, the job restarts, and the same may happen again: a job that
was to recover from a kill restarted ten times in a row.
"""

import pickle
import threading
from typing import Any

_LOADING = threading.Lock()


def load_alone(pickled: bytes) -> Any:
    """The object of a pickled class and its attributes, loaded while nothing else is."""
    with _LOADING:
        kind, attributes = pickle.loads(pickled)  # noqa: S301 - from the process that submits the job
        made = kind.__new__(kind)
        made.__dict__.update(attributes)
        return made

"""pymilvus, imported so that logging stays as it is, and what its errors mean."""

import logging.config
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]  # installed with pymilvus


@contextmanager
def _logging_unchanged() -> Iterator[None]:
    """Ignore configuration of logging while the block runs.

    pymilvus 2.5 configures it when it is imported, and ``dictConfig`` closes all handlers: a Flink
    worker's, which carries its log to the TaskManager, wrote no line after that.
    """
    configure = logging.config.dictConfig
    logging.config.dictConfig = lambda config: None
    try:
        yield
    finally:
        logging.config.dictConfig = configure


with _logging_unchanged():
    from pymilvus import (
        AnnSearchRequest,
        DataType,
        Function,
        FunctionType,
        MilvusClient,
        MilvusException,
        RRFRanker,
        WeightedRanker,
        utility,
    )
    from pymilvus.exceptions import DataNotMatchException, ParamError

__all__ = [
    "AnnSearchRequest",
    "DataType",
    "Function",
    "FunctionType",
    "MilvusClient",
    "MilvusException",
    "RRFRanker",
    "WeightedRanker",
    "is_gone",
    "is_refusal",
    "may_be_refusal",
    "message_of",
    "utility",
]
#: Milvus's codes for an invalid parameter: no repetition changes the answer.
REFUSALS = frozenset({1100, 1101})
#: Its codes for a server that is not ready, has no memory or disk left, or limits requests; 1 is
#: also the one of older servers for whatever they did not expect.
BUSY = frozenset({2, 3, 4, 7, 8})
COLLECTION_NOT_FOUND = 100
GONE_WORDS = "can't find collection"
#: Lines of Go's stack, each a file and line and a function; the reason follows them.
STACK_TRACE = re.compile(r"stack trace: (?:\S+:\d+ [^\s:]+(?:: |\s*))+")


def is_refusal(error: Exception) -> bool:
    """Whether the server cannot store the rows, whenever it is asked."""
    return isinstance(error, ParamError | DataNotMatchException) or code_of(error) in REFUSALS


def may_be_refusal(error: Exception) -> bool:
    """Whether the server answered, with a code that says neither that it refuses nor that it waits.

    Rows that it cannot store have such codes, and so has a server that is still starting.
    """
    code = code_of(error)  # none where the server did not answer
    return isinstance(error, MilvusException) and code is not None and code not in BUSY


def code_of(error: Exception) -> int | None:
    """Milvus's code of the error."""
    code: Any = getattr(error, "code", None)  # a method where the error is grpc's
    return code if isinstance(code, int) else None


def is_gone(error: Exception) -> bool:
    """Whether the collection does not exist any more; waiting for it would never end."""
    return code_of(error) == COLLECTION_NOT_FOUND or GONE_WORDS in str(error)


def message_of(error: Exception) -> str:
    """The server's message, without what pymilvus writes before it and without stack traces."""
    details = error.details() if isinstance(error, grpc.RpcError) else ""
    text = str(details or getattr(error, "message", "") or error)
    return STACK_TRACE.sub("", text.rpartition("0 retry times, message=")[2])[:300]

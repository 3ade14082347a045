"""pymilvus, imported so that logging stays as it is, and what its errors mean."""

import logging.config
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]  # comes with pymilvus


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
    from pymilvus import DataType, MilvusClient, MilvusException
    from pymilvus.exceptions import DataNotMatchException, ParamError

__all__ = ["DataType", "MilvusClient", "MilvusException", "is_gone", "is_refusal", "message_of"]
#: Milvus's codes for an invalid parameter: no repetition changes the answer.
REFUSALS = frozenset({1100, 1101})
#: Unfit values may also come with an unnamed code, which a server that is not ready uses as well.
REFUSAL_WORDS = ("exceeds max length", "number or infinity", "should divide the dim")
COLLECTION_NOT_FOUND = 100
GONE_WORDS = "can't find collection"


def is_refusal(error: Exception) -> bool:
    """Whether the server cannot store the rows, whenever it is asked."""
    if isinstance(error, ParamError | DataNotMatchException):
        return True
    code: Any = getattr(error, "code", None)  # a method where the error came from grpc
    return code in REFUSALS or any(word in str(error) for word in REFUSAL_WORDS)


def is_gone(error: Exception) -> bool:
    """Whether the collection does not exist any more; waiting for it would never end."""
    return getattr(error, "code", None) == COLLECTION_NOT_FOUND or GONE_WORDS in str(error)


def message_of(error: Exception) -> str:
    """The server's message, without what pymilvus writes before it."""
    details = error.details() if isinstance(error, grpc.RpcError) else ""
    text = str(details or getattr(error, "message", "") or error)
    return text.rpartition("0 retry times, message=")[2][:300]

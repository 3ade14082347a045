"""Calls to the model pool, as specs: the request made from a record, and the result added to it."""

from sage_flink.inference.chat import Chat, chat
from sage_flink.inference.completion import Completion, completion
from sage_flink.inference.embed import Embed, embed
from sage_flink.inference.memory import EchoPool
from sage_flink.inference.rerank import Rerank, rerank
from sage_flink.inference.retrieve import Retrieve, retrieve

__all__ = [
    "Chat",
    "Completion",
    "EchoPool",
    "Embed",
    "Rerank",
    "Retrieve",
    "chat",
    "completion",
    "embed",
    "rerank",
    "retrieve",
]

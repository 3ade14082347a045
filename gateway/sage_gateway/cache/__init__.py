"""Caches: earlier answers to equal requests, and known vectors, for clients that accept them.

``response_cache`` and ``embedding_cache`` are the handlers, ``aged_answers`` what they share.
``store_protocol`` is the contract of their ``stores``: ``sqlite`` for vectors; for responses
``memory``, or ``redis`` where several gateways have their idempotency store there.
"""

from sage_gateway.cache.embedding_cache import EmbeddingCache
from sage_gateway.cache.response_cache import ResponseCache

__all__ = ["EmbeddingCache", "ResponseCache"]

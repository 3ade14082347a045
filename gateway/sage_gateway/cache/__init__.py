"""Response cache: an earlier answer to an equal request, for clients that accept it.

``response_cache.py`` is the handler. ``store_protocol.py`` is the contract of its stores:
``memory.py`` for one gateway, ``redis.py`` for several, where their idempotency store is in Redis.
"""

from sage_gateway.cache.response_cache import ResponseCache

__all__ = ["ResponseCache"]

"""Answers that are given again to an equal request; only to those who ask for it, by a header.

``cache.py`` decides, ``port.py`` with its stores keeps: ``memory.py`` for one gateway, ``redis.py``
where the ledger is in Redis, so that several gateways share what they keep.
"""

from sage_gateway.cache.response_cache import ResponseCache

__all__ = ["ResponseCache"]

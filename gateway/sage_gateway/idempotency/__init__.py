"""Idempotency: a call under an id is answered, and paid for, once (the generation ledger).

``service.py`` is the handler; ``decisions.py`` has its pure decisions. ``in_flight_calls.py`` runs
each call and lets repeats join it, ``in_flight_call.py`` is one of them. ``store_protocol.py`` is
the contract of the stores ``memory.py``, ``sqlite.py`` (its file: ``sqlite_tables.py``) and
``redis.py``; ``resilient_store.py`` keeps their failures from requests; ``counters.py`` has the
metrics.
"""

from sage_gateway.idempotency.service import Idempotency

__all__ = ["Idempotency"]

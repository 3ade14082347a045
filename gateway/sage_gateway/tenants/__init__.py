"""Tenants: API keys, scopes, limits, budgets and usage.

``quota.py`` is the handler that holds and charges the cost of a call: ``cost.py`` estimates it,
``limits.py`` decides, ``usage_charge.py`` charges it. ``keys.py`` and ``scopes.py`` say what a key
may do; ``tenants.py`` keeps keys and usage current, ``usage_points.py`` exports them.
``store_protocol.py`` is the contract of the stores ``memory.py``, ``sqlite.py`` (its file:
``sqlite_tables.py``) and ``redis.py`` (its Lua: ``scripts.py``); ``account_balances.py`` is the
balances of one process, and ``stores.py`` chooses the store.
"""

from sage_gateway.tenants.keys import Key, Keys, Scope, local_key
from sage_gateway.tenants.tenants import Tenants

__all__ = ["Key", "Keys", "Scope", "Tenants", "local_key"]

"""Who may ask, how much, and what it cost: keys, scopes, limits, budgets, usage."""

from sage_gateway.tenants.keys import Key, Keys, Scope, local_key
from sage_gateway.tenants.tenants import Tenants

__all__ = ["Key", "Keys", "Scope", "Tenants", "local_key"]

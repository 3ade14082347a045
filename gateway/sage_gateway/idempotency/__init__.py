"""The generation ledger: a call under an id is paid for once."""

from sage_gateway.idempotency.service import Ledger

__all__ = ["Ledger"]

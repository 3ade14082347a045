"""The generation ledger: a call under an id is paid for once."""

from sage_gateway.idempotency.service import Idempotency

__all__ = ["Idempotency"]

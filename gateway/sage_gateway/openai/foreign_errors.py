"""Errors of sage's other packages, translated into the gateway's own."""

import logging

from sage_flink.common import PoolError, PoolTimeout, Rejected, Retryable
from sage_gateway.errors import (
    EngineTimeout,
    GatewayError,
    InternalError,
    InvalidRequest,
    StoreAway,
)
from sage_gateway.openai.error_table import error_of

log = logging.getLogger("sage.gateway")


def gateway_error(error: BaseException) -> GatewayError:
    """``error`` as the client may see it; the details of an unexpected one go to the log only."""
    match error:
        case GatewayError():
            return error
        case Rejected():
            return InvalidRequest(str(error))
        case PoolTimeout():
            return EngineTimeout(str(error))
        case PoolError() if 400 <= error.status < 500 and error.status != 429:
            return error_of(error.status, str(error), code=error.code or None)
        case PoolError():
            status = error.status if error.status in (429, 503, 504) else 502
            failed = error_of(status, str(error), code="pool_error")
            failed.retry_after_s = 1
            return failed
        case Retryable():  # its text has the store's address
            log.warning("a store does not respond: %s", error)
            why = "a store that the answer depends on does not respond; try again"
            return StoreAway(why, retry_after_s=2)
    log.error("unexpected error", exc_info=error)
    return InternalError("the gateway failed; its log says why")

"""The header ``x-sage-cache: ttl=SECONDS``."""

import re

from sage_flink.flow.call_options import CACHE_TTL_S_MAX
from sage_gateway.errors import InvalidRequest

TTL_S_MAX = CACHE_TTL_S_MAX
_TTL = re.compile(rb"ttl=([1-9]\d{0,7})")


def cache_ttl_s(value: bytes) -> int:
    """How long the answer may be kept and given again, in seconds.

    Raises:
        InvalidRequest: the header has another form.
    """
    if found := _TTL.fullmatch(value):
        return int(found[1])
    message = f"x-sage-cache must be ttl=SECONDS, 1 to {TTL_S_MAX}"
    raise InvalidRequest(message, code="invalid_header", param="x-sage-cache")

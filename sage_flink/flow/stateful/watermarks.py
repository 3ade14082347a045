"""The watermark of a stream: the time up to which no record is expected any more. Pure.

>>> watermarks = Watermarks(out_of_order_ms=10)
>>> watermarks.add("t/0/0", 100), watermarks.add("t/1/0", 50), watermarks.add("t/1/1", 105)
(89, None, None)
>>> watermarks.add("t/0/1", 120)
94
"""

import re

#: The watermark behind the last record of a source.
END_MS = 2**63 - 1
_KAFKA = re.compile(r"(.+/[0-9]+)/[0-9]+", re.DOTALL)
_STEPS = 100


class Watermarks:
    """The watermark behind the latest record of the slowest partition.

    A partition is that of the record's origin, ``topic/partition/offset``; all other records are
    one partition. The watermark advances in steps of a hundredth of ``out_of_order_ms``. Source:
    ``PartitionWatermarks.java``, which also knows idle partitions.
    """

    def __init__(self, out_of_order_ms: int) -> None:
        self._out_of_order_ms = out_of_order_ms
        self._step_ms = max(1, out_of_order_ms // _STEPS)
        self._latest_ms: dict[str, int] = {}
        self._watermark_ms: int | None = None

    def add(self, origin: str, timestamp_ms: int) -> int | None:
        """The watermark after the record where it has advanced, otherwise None."""
        match = _KAFKA.fullmatch(origin)
        partition = match[1] if match else ""
        latest = self._latest_ms.get(partition, timestamp_ms)
        self._latest_ms[partition] = max(latest, timestamp_ms)
        next_ms = min(self._latest_ms.values()) - self._out_of_order_ms - 1
        before = self._watermark_ms
        if before is not None and next_ms - before < self._step_ms:
            return None
        self._watermark_ms = next_ms
        return next_ms

"""For how long a bucket of InfluxDB keeps points.

Source: InfluxDB v2 API reference, PATCH /api/v2/buckets/{bucketID}.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from influxdb_client import BucketRetentionRules, InfluxDBClient

from sage_flink.common.errors import NotFound, Rejected

#: The server takes no shorter time.
RETENTION_MIN_S = 3600


@dataclass(frozen=True, slots=True)
class Retention:
    """The retention rule of a bucket; ``call`` runs a request and wraps its errors."""

    client: InfluxDBClient
    bucket: str
    call: Callable[[Callable[[], Any]], Any]

    def seconds(self) -> int | None:
        """For how long points are kept; None: for as long as the bucket exists.

        Raises:
            NotFound: the bucket has been deleted.
            StoreUnavailable: no answer; the same call may succeed later.
        """
        return _seconds(self._bucket_now())

    def change(self, seconds: int | None) -> bool:
        """Keep points for ``seconds``, from their time on; whether that is a change.

        The server deletes older points within the hour, whole shards at a time: the sizes of new
        shards become those that it chooses for the time.

        Raises:
            Rejected: it is less than an hour.
            NotFound: the bucket has been deleted.
            StoreUnavailable: no answer; the same call may succeed later.
        """
        if seconds is not None and seconds < RETENTION_MIN_S:
            raise Rejected(f"retention: at least {RETENTION_MIN_S} s, an hour, got {seconds}")
        found = self._bucket_now()
        if _seconds(found) == seconds:
            return False
        # 0: they never expire; without a size of its own a shard of a long time is refused.
        found.retention_rules = [
            BucketRetentionRules(
                type="expire", every_seconds=seconds or 0, shard_group_duration_seconds=0
            )
        ]
        self.call(lambda: self.client.buckets_api().update_bucket(found))
        return True

    def _bucket_now(self) -> Any:
        buckets = self.client.buckets_api()
        found = self.call(lambda: buckets.find_bucket_by_name(self.bucket))
        if found is None:
            raise NotFound(f"no bucket {self.bucket!r}")
        return found


def _seconds(bucket: Any) -> int | None:
    rules = [rule.every_seconds for rule in bucket.retention_rules or () if rule.every_seconds]
    return int(rules[0]) if rules else None

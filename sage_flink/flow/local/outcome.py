"""What a run in this process returns."""

from dataclasses import dataclass, field

from sage_flink.common.errors import SageError
from sage_flink.common.records import FailedRecord, Record


@dataclass(frozen=True, slots=True)
class Outcome:
    """The records of a run: upserts written, per sink in order of arrival, or failed.

    ``errors`` has the last error of a failed record's call, by record id, and ``merged`` how many
    records got the answer of another request, by call with ``merging``.
    """

    written: dict[str, list[Record]] = field(default_factory=dict)
    failed: list[FailedRecord] = field(default_factory=list)
    errors: dict[str, SageError] = field(default_factory=dict)
    merged: dict[str, int] = field(default_factory=dict)

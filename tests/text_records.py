"""Records with a text each, for graphs that run in this process."""

from sage_flink.common import Record
from sage_flink.flow.lists import ListSource


def words(*texts: str) -> ListSource:
    """One record for each text, with the ids ``r0``, ``r1``, ..."""
    return ListSource(tuple(Record(id=f"r{i}", value={"text": t}) for i, t in enumerate(texts)))

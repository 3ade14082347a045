"""A removal: the record that says which rows of a document have had their day.

Its value is ``{"$delete": {"doc": D, "keep": V}}``: the rows of document D go, but those of version
V stay; without a version all of them go. It travels in the stream behind the rows that it judges,
so a store that takes both in their order stays in step with the source. The steps on the way need
not know: a removal goes past every function, call and sink that does not say
``takes_removals = True``.

>>> from sage_flink.common.records import Record
>>> removal(Record("r", Removal("intro", "v2").value()))
Removal(doc='intro', keep='v2')
>>> removal(Record("r", {"doc": "intro"})) is None
True
"""

from typing import Any, NamedTuple

from sage_flink.common.records import Record

KEY = "$delete"


class Removal(NamedTuple):
    """All rows of document ``doc`` but those of version ``keep``; an empty ``keep`` keeps none."""

    doc: str
    keep: str = ""

    def value(self) -> dict[str, Any]:
        """The value of the record that carries it."""
        return {KEY: self._asdict()}


def removal(record: Record) -> Removal | None:
    """The removal that ``record`` carries, if it carries a whole one."""
    value = record.value
    if not isinstance(value, dict) or len(value) != 1:
        return None
    match value.get(KEY):
        case {"doc": str(doc), "keep": str(keep)} if doc:
            return Removal(doc, keep)
    return None


def goes_past(step: object, record: Record) -> bool:
    """Whether ``record`` is a removal, and ``step`` (a function or a sink) does not take those."""
    return removal(record) is not None and not getattr(step, "takes_removals", False)

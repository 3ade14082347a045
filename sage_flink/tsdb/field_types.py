"""The types of a store's fields: the first value of a field counts for its whole measurement."""

from collections.abc import Mapping

from sage_flink.tsdb.time_series_store import Point


class FieldTypes:
    """Types by measurement and field, learned from the points that fit.

    >>> types = FieldTypes()
    >>> types.conflict(Point("room", {}, {"celsius": 20.5}, 1))
    ''
    >>> types.conflict(Point("room", {}, {"celsius": "warm"}, 2))
    "field 'celsius' is str, already exists as float"
    """

    def __init__(self, types: Mapping[str, Mapping[str, type]] | None = None) -> None:
        self._types = {
            (measurement, name): kind
            for measurement, fields in (types or {}).items()
            for name, kind in fields.items()
        }

    def conflict(self, point: Point) -> str:
        """Why the point does not fit; empty where it does, and its fields are then known."""
        kinds = {(point.measurement, name): type(value) for name, value in point.fields.items()}
        for key, kind in kinds.items():
            if (existing := self._types.get(key, kind)) is not kind:
                return f"field {key[1]!r} is {kind.__name__}, already exists as {existing.__name__}"
        self._types |= kinds
        return ""

    def has_all(self, point: Point) -> bool:
        """Whether all fields of the point are known."""
        return all((point.measurement, name) in self._types for name in point.fields)

    def of(self, measurement: str, name: str) -> type | None:
        """The type of a field; None where there is none."""
        return self._types.get((measurement, name))

    def by_measurement(self) -> dict[str, dict[str, type]]:
        """All of them."""
        types: dict[str, dict[str, type]] = {}
        for (measurement, name), kind in self._types.items():
            types.setdefault(measurement, {})[name] = kind
        return types

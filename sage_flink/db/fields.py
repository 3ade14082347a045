"""Fields of a row, whose operators make filters: ``field("year") >= 2024``."""

from collections.abc import Iterable

from sage_flink.common.errors import Rejected
from sage_flink.db.filter_values import Place, Scalar, check_place, place_text
from sage_flink.db.filters import Comparison, Contains, Exists, Like, OneOf, RowFilter


class Field:
    """A field of a row, or a place within it; its operators make filters."""

    __slots__ = ("place",)
    __hash__ = None  # type: ignore[assignment]  # == makes a filter

    def __init__(self, place: Place) -> None:
        check_place(place)
        self.place = place

    def __getitem__(self, key: str | int) -> "Field":
        return Field((*self.place, key))

    def __eq__(self, value: Scalar) -> RowFilter:  # type: ignore[override]
        return Comparison(self.place, "==", value)

    def __ne__(self, value: Scalar) -> RowFilter:  # type: ignore[override]
        return Comparison(self.place, "!=", value)

    def __lt__(self, value: Scalar) -> RowFilter:
        return Comparison(self.place, "<", value)

    def __le__(self, value: Scalar) -> RowFilter:
        return Comparison(self.place, "<=", value)

    def __gt__(self, value: Scalar) -> RowFilter:
        return Comparison(self.place, ">", value)

    def __ge__(self, value: Scalar) -> RowFilter:
        return Comparison(self.place, ">=", value)

    def in_(self, values: Iterable[Scalar]) -> RowFilter:
        """It equals one of ``values``, a list; of none it is false."""
        if isinstance(values, str):
            raise Rejected(
                f"filter: {place_text(self.place)}.in_ takes a list, got {values!r:.100}"
            )
        return OneOf(self.place, tuple(values))

    def like(self, pattern: str) -> RowFilter:
        r"""The whole text fits: ``%`` any text, ``_`` one character, ``\`` before a plain one."""
        return Like(self.place, pattern)

    def contains(self, value: Scalar) -> RowFilter:
        """It is an array with this item."""
        return Contains(self.place, value)

    def exists(self) -> RowFilter:
        """It is there, null too."""
        return Exists(self.place)


def field(name: str) -> Field:
    """The field ``name`` of a row, to be compared.

    Raises:
        Rejected: it is ``vector``, or no name.
    """
    return Field((name,))

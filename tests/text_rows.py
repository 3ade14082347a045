"""Rows whose order by vector and by words is unambiguous."""

import math
from typing import Any

from sage_flink.db import VectorRow
from sage_flink.db.vectors import pack

EAST = [1.0, 0, 0, 0, 0, 0, 0, 0]
#: Each text has words of its own beside those that it shares.
TEXTS = {
    "refund": "Refund policy: money back within thirty days",
    "returns": "Returned goods: policy of shops for exchange",
    "shipping": "Shipping takes three days inside Europe, free",
    "privacy": "Privacy policy: cookies, data, consent, deletion, Policy",
    "e-42": "Error E42 means pump pressure lost quickly",
    "umlaut": "Größe und Maß prüfen vor Versand",
}


def row(id_: str, angle: float = 0.0, **fields: Any) -> VectorRow:
    """A row so many radians from EAST."""
    return VectorRow(id_, pack([math.cos(angle), math.sin(angle), *EAST[2:]]), fields)


def rows_of_texts() -> list[VectorRow]:
    """The rows of TEXTS, each a tenth of a radian farther from EAST than the one before it."""
    return [row(id_, n / 10, text=text, n=n) for n, (id_, text) in enumerate(TEXTS.items())]

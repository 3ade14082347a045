"""Answers of InfluxDB: annotated CSV, whose annotations have the types of the columns.

Source: InfluxDB v2 documentation, "Annotated CSV".
"""

import csv
import io
from collections.abc import Iterator

from sage_flink.common.errors import StoreUnavailable
from sage_flink.tsdb.time_series_store import Field

#: A row's columns as text, the types of the columns, and the tags of its series.
AnswerRow = tuple[dict[str, str], dict[str, str], dict[str, str]]


def typed_value(value: str, kind: str) -> Field:
    """A value of the answer, by the type of its column."""
    match kind:
        case "boolean":
            return value == "true"
        case "long" | "unsignedLong":
            return int(value)
        case "double":
            return float(value)
    return value.replace("\r\n", "\n")  # the server's CSV writer makes every line end two bytes


def is_null(row: AnswerRow) -> bool:
    """Whether a row has a null in place of a number."""
    plain, kinds, _ = row
    return not plain["_value"] and kinds["_value"] != "string"


def read_answer(answer: bytes) -> Iterator[AnswerRow]:
    """Each row as text, the types of its columns, and its series' tags.

    Raises:
        StoreUnavailable: the answer is an error.
    """
    kinds: list[str] = []
    grouped: list[str] = []
    result = ""
    header: list[str] = []
    for row in csv.reader(io.StringIO(answer.decode(), newline="")):
        match row:
            case []:
                header = []
            case ["#datatype", *kinds]:
                header = []
            case ["#group", *grouped]:
                header = []
            case ["#default", name, *_]:
                header, result = [], name
            case [_, *rest] if not header:
                header = rest
            case [_, message, *_] if header[0] == "error":
                raise StoreUnavailable(f"InfluxDB: the query failed: {message}")
            case [_, *values]:
                # Columns 0 and 1 are 'result' and 'table', which a tag may be called as well.
                named = list(zip(header, values, grouped, strict=True))[2:]
                series = {k: v for k, v, g in named if g == "true" and k[0] != "_" and v}
                plain = {k: v for k, v, _ in named if k[0] == "_"} | {"result": result}
                yield plain, dict(zip(header, kinds, strict=True)), series

"""InfluxDB's line protocol: one point as one line. Pure.

Measurements, tags and names of fields come again and again, so their escaped forms are cached.

Source: InfluxDB v2 documentation, "Line protocol".
"""

from functools import lru_cache

from sage_flink.tsdb.time_series_store import SHORT_TEXT, Field, Point


def line(point: Point) -> str:
    r"""The point as one line of line protocol. Needs a point without a flaw.

    >>> line(Point("a b", {"k": "x,y", "empty": ""}, {"n": 1, "s": 'say "hi"'}, 5))
    'a\\ b,k=x\\,y n=1i,s="say \\"hi\\"" 5'
    """
    tags = "".join(f",{_escape(k)}={_escape(v)}" for k, v in sorted(point.tags.items()) if v)
    fields = ",".join(f"{_escape(k)}={_literal(v)}" for k, v in point.fields.items())
    return f"{_escape(point.measurement, '')}{tags} {fields} {point.timestamp_ns}"


def _escape(text: str, equals: str = "=") -> str:
    if len(text) <= SHORT_TEXT:
        return _escape_short(text, equals)
    return _with_backslashes(text, equals)


@lru_cache(maxsize=4096)
def _escape_short(text: str, equals: str) -> str:
    return _with_backslashes(text, equals)


def _with_backslashes(text: str, equals: str) -> str:
    for special in f", {equals}":
        text = text.replace(special, f"\\{special}")
    return text


def _literal(field: Field) -> str:
    match field:
        case bool():
            return "true" if field else "false"
        case int():
            return f"{field}i"
        case float():
            return repr(field)
    escaped = field.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

"""Text of Flux queries: literals, and the points of a measurement.

Source: Flux specification, string literals.
"""

from collections.abc import Mapping


def text(value: str) -> str:
    r"""The value as a Flux string literal; no part of it is code.

    >>> text('") |> drop() // ${x}')
    '"\\") |> drop() // \\${x}"'
    """
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'


def points_from(
    bucket: str, measurement: str, start_ns: int | str, stop_ns: int | str, tags: Mapping[str, str]
) -> str:
    """A query of the points with these tags; one without a value must be absent.

    The times are nanoseconds since the epoch, or names of variables of the query.
    """
    wanted = [("_measurement", measurement), *tags.items()]
    same = " and ".join(
        f"r[{text(key)}] == {text(value)}" if value else f"not exists r[{text(key)}]"
        for key, value in wanted
    )
    return (
        f"from(bucket: {text(bucket)})"
        f" |> range(start: time(v: {start_ns}), stop: time(v: {stop_ns}))"
        f" |> filter(fn: (r) => {same})"
    )

"""Rows of cells as a table of markdown, the first row as its header."""

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The table; a line for each row where all have one cell.

    Rows keep their own number of cells, so that one long row does not cost memory.

    >>> print(markdown_table([["city", "note"], ["Ulm", "a|b"], ["Rome"]]))
    | city | note |
    | --- | --- |
    | Ulm | a\\|b |
    | Rome |
    """
    width = max(map(len, rows), default=0)
    if width == 1:
        return "\n".join(" ".join(cell.split()) for row in rows for cell in row)
    header, *others = rows
    lines = [_line([*header, *[""] * (width - len(header))]), "| --- " * width + "|"]
    return "\n".join([*lines, *map(_line, others)])


def _line(cells: Sequence[str]) -> str:
    inner = " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {inner} |"

"""Output of the commands: tables for people, JSON for programs."""

import json
from collections.abc import Iterable
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table

#: Linux's PATH_MAX.
PATH_CHARS_MAX = 4096

# No markup: names and messages hold brackets.
console = Console(highlight=False, markup=False, emoji=False)
_wide = Console(highlight=False, markup=False, emoji=False, width=PATH_CHARS_MAX)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_json(value: object) -> None:
    """Print ``value`` as one line of JSON; paths become strings."""
    print(json.dumps(msgspec.to_builtins(value, enc_hook=str)))


def table(*columns: str | Column, numbers: Iterable[str] = ()) -> Table:
    """An empty table without lines.

    Columns given by name fold on a narrow console, so that no text is cut; ``numbers`` are
    right-aligned columns that never wrap.
    """
    texts = (c if isinstance(c, Column) else Column(c, overflow="fold") for c in columns)
    counts = (Column(name, justify="right", no_wrap=True) for name in numbers)
    return Table(*texts, *counts, box=None)


def print_table(rows: Table, empty: str = "", *, wide: bool = False) -> None:
    """Print a table, or the text ``empty`` in place of a table without rows.

    ``wide``: each row stays on one line, however narrow the console is, so that paths can be
    copied.
    """
    (_wide if wide else console).print(rows if rows.row_count or not empty else empty)

"""How commands print: tables for people, JSON for programs."""

from typing import Annotated

import typer
from rich.console import Console

# No markup: names and messages hold brackets.
console = Console(highlight=False, markup=False, emoji=False)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

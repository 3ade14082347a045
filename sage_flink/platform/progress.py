"""Progress table: the state of several servers while they start.

On a terminal it is one live table; elsewhere one plain line for each server that becomes ready or
fails, so that a log stays readable. The caller owns the states; the table only shows them.
"""

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

Mark = Literal["waiting", "working", "ready", "failed"]

STYLES: dict[Mark, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "working": ("…", "yellow"),
    "ready": ("✓", "green"),
    "failed": ("✗", "bold red"),
}


@dataclass(frozen=True, slots=True)
class ProgressRow:
    """One server: its name, state, a few words of detail, and seconds since the table opened."""

    name: str
    mark: Mark = "waiting"
    detail: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class ProgressTable:
    """The rows of ``names`` in this order, shown while the ``with`` block lasts.

    ``quiet`` suppresses all output. The seconds of a ``ready`` or ``failed`` row do not change.
    """

    title: str
    names: list[str]
    console: Console = field(default_factory=Console)
    quiet: bool = False
    rows: dict[str, ProgressRow] = field(init=False)
    started: float = field(init=False)
    live: Live | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.rows = {name: ProgressRow(name) for name in self.names}
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.quiet:
            self.live = Live(self.table(), console=self.console, refresh_per_second=8)
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.update(self.table(), refresh=True)
            self.live.stop()

    def mark(self, name: str, mark: Mark, detail: str = "") -> None:
        """Set the state of one row; a plain line is written when it first becomes final."""
        before = self.rows[name]
        seconds = before.seconds if before.mark == mark else time.monotonic() - self.started
        self.rows[name] = ProgressRow(name, mark, detail, seconds)
        if self.live is not None:
            self.live.update(self.table())
        elif not self.quiet and mark != before.mark and mark in ("ready", "failed"):
            self.console.out(
                f"{name:<12} {mark:<7} {seconds:5.1f} s  {detail}".rstrip(), highlight=False
            )

    def table(self) -> Table:
        """The rows as a table; a row in progress shows the seconds so far."""
        table = Table(title=self.title, title_justify="left", box=None, pad_edge=False)
        for header, justify in (
            ("", "left"),
            ("server", "left"),
            ("seconds", "right"),
            ("", "left"),
        ):
            table.add_column(header, justify="right" if justify == "right" else "left")
        for row in self.rows.values():
            sign, style = STYLES[row.mark]
            running = row.mark in ("waiting", "working")
            seconds = time.monotonic() - self.started if running else row.seconds
            table.add_row(
                Text(sign, style), Text(row.name), f"{seconds:.1f}", Text(row.detail, "dim")
            )
        return table

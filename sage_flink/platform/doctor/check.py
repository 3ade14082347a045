"""Result of one check."""

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "fault"]


class Check(NamedTuple):
    """One finding. ``next_step`` is what to do about it; empty when it is ok.

    A fault keeps the stack or a job from working; a warning may do so later, or on another machine.
    """

    area: str
    name: str
    level: Level
    finding: str
    next_step: str = ""

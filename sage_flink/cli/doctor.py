"""``sage doctor``: checks of the machine, the installation, the stack and its jobs."""

import typer
from rich.text import Text

from sage_flink.cli.output import AsJson, console, print_json
from sage_flink.platform.doctor import examine

STYLES = {"ok": "green", "warning": "yellow", "fault": "red"}


def doctor(as_json: AsJson = False) -> None:
    """Check machine, versions, ports, servers, connections and jobs; say what to do.

    Works with and without an installed or running stack, changes nothing, and takes at most five
    seconds. Exits with 1 when there is a fault.
    """
    checks = examine()
    if as_json:
        print_json([check._asdict() for check in checks])
    else:
        for check in checks:
            level = (f"{check.level:<8}", STYLES[check.level])
            next_step = f". Next: {check.next_step}" if check.next_step else ""
            name = f"{check.area}: {check.name}" if check.area != check.name else check.name
            line = Text.assemble(level, f"{name:<28} {check.finding}{next_step}")
            console.print(line, soft_wrap=True)
    if any(check.level == "fault" for check in checks):
        raise typer.Exit(1)

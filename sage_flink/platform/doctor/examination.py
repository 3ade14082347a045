"""All checks at the same time, in a bounded time."""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from sage_flink.common.errors import SageError
from sage_flink.common.settings import Settings, sage_cache, sage_home
from sage_flink.platform.doctor.check import Check
from sage_flink.platform.doctor.connections import check_connections, read_connections
from sage_flink.platform.doctor.jobs import check_jobs, read_jobs
from sage_flink.platform.doctor.machine import check_machine, read_machine
from sage_flink.platform.doctor.servers import check_stack, read_stack
from sage_flink.platform.doctor.versions import check_versions, read_versions

TIMEOUT_S = 4.0
PINS = Path(__file__).resolve().parents[3] / "infra" / "constraints.txt"
Examination = Callable[[], Iterable[Check]]


def examine() -> list[Check]:
    """The checks of everything, in a fixed order, after at most TIMEOUT_S seconds.

    Never raises: an area that cannot be examined is a fault with the reason.
    """
    areas: dict[str, Examination] = {
        "machine": lambda: check_machine(read_machine(sage_home(), sage_cache())),
        "versions": lambda: check_versions(read_versions(sage_home(), PINS)),
        "stack": lambda: check_stack(read_stack(sage_home())),
        "connections": lambda: check_connections(read_connections(Settings.load())),
        "jobs": lambda: check_jobs(read_jobs(Settings.load().flink_url, time.time())),
    }
    found: dict[str, list[Check]] = {}
    # Daemons: a thread that waits for a dead file system must not keep the program.
    threads = {
        area: threading.Thread(target=_run, args=(found, area, checks), daemon=True)
        for area, checks in areas.items()
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + TIMEOUT_S
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    return [check for area in areas for check in found.get(area, [_no_answer(area)])]


def _run(found: dict[str, list[Check]], area: str, checks: Examination) -> None:
    try:
        found[area] = list(checks())
    except SageError as error:
        found[area] = [Check(area, area, "fault", str(error), "follow this message")]
    except Exception as error:  # whatever it is, it is a finding about this machine
        what = f"{type(error).__name__}: {error}"
        step = "report it with the output of `sage doctor --json`"
        found[area] = [Check(area, area, "fault", f"cannot be examined: {what}", step)]


def _no_answer(area: str) -> Check:
    found = f"no answer in {TIMEOUT_S:.0f} s"
    step = "see whether a server or a disk hangs: `sage ps`, `df`"
    return Check(area, area, "fault", found, step)

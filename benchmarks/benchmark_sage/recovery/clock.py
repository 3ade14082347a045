"""Jumping clock: servers started under it read the machine's time plus an offset."""

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sage_flink.common import ConfigError

SOURCE = Path(__file__).with_name("clock.c")


@dataclass(frozen=True, slots=True)
class JumpingClock:
    """The clock that the servers read: the machine's real-time clock plus a settable offset."""

    file: Path

    def jump(self, seconds: int) -> None:
        """Set the offset: the servers' clock is ``seconds`` ahead; if negative, behind."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("=q", seconds))


@contextmanager
def jumping_clock(folder: Path) -> Iterator[JumpingClock]:
    """Processes started in the block, and their later children, read the yielded clock.

    Programs that do not call libc for the time (Go's) still read the machine's clock.

    Raises:
        ConfigError: there is no C compiler, or the compilation fails.
    """
    library, file = folder / "clock.so", folder / "clock"
    compiler = ("cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library))
    try:
        subprocess.run((*compiler, str(SOURCE)), check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ConfigError("no C compiler (cc); apt-get install gcc") from error
    except subprocess.CalledProcessError as error:
        raise ConfigError(f"cc cannot compile {SOURCE}: {error.stderr.strip()}") from error
    file.write_bytes(bytes(8))
    names = {"LD_PRELOAD": str(library), "SAGE_CLOCK": str(file)}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield JumpingClock(file)
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value

"""A clock that jumps, for servers started under it."""

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
class Clock:
    """What the servers read of the real time clock: the machine's, plus what ``jump`` said."""

    file: Path

    def jump(self, seconds: int) -> None:
        """From now on the servers are so many seconds ahead; negative: behind."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("=q", seconds))


@contextmanager
def clock(folder: Path) -> Iterator[Clock]:
    """What is started while the block runs, and what that starts later, reads the clock given.

    Programs that do not call libc for the time (Go's) read the machine's.

    Raises:
        ConfigError: there is no C compiler, or it refuses.
    """
    library, file = folder / "clock.so", folder / "clock"
    compiler = ("cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library))
    try:
        subprocess.run((*compiler, str(SOURCE)), check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ConfigError("no C compiler (cc); apt-get install gcc") from error
    except subprocess.CalledProcessError as error:
        raise ConfigError(f"cc does not like {SOURCE}: {error.stderr.strip()}") from error
    made = Clock(file)
    file.write_bytes(bytes(8))
    names = {"LD_PRELOAD": str(library), "SAGE_CLOCK": str(file)}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield made
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value

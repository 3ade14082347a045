"""Files that appear when they are whole, in the format that their name ends with."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sage_flink.common.errors import ConfigError

T = TypeVar("T")


def by_ending(file: Path, formats: Mapping[str, T]) -> T:
    """The format of the file's name.

    Raises:
        ConfigError: it has none of these endings.
    """
    if file.suffix not in formats:
        raise ConfigError(f"{file}: its name must end with {' or '.join(formats)}")
    return formats[file.suffix]


def write_whole(file: Path, write: Callable[[Path], T]) -> T:
    """What ``write`` returns, which fills a file next to ``file`` that then replaces it.

    Raises:
        ConfigError: the file cannot be written.
    """
    part = file.with_name(f".{file.name}.part")
    try:
        done = write(part)
        part.replace(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return done

"""How a job, and ``sage`` itself, ends for the one who started it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.text import Text

from sage_flink.common import SageError

#: Who makes a job's calls to the pool: the Java operator, or PyFlink's own.
Calls = Literal["native", "python"]


@contextmanager
def told(program: str) -> Iterator[None]:
    """A SageError becomes one message on stderr and exit status 2, Ctrl-C status 130.

    The message is printed as it is: nothing in it is markup, and no line of it is broken.
    """
    try:
        yield
    except SageError as error:
        message = Text.assemble((f"{program}:", "bold red"), f" {error}")
        Console(stderr=True, highlight=False).print(message, soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None

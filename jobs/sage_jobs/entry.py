"""The command line of a job: its options, and its errors as one message and an exit status."""

import errno
import inspect
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.text import Text

import sage_flink as sage
from sage_flink.common import ConfigError, SageError

#: Faults of the machine that any write can meet: a full or read-only disk, another user's folder.
MACHINE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


@contextmanager
def report_errors(program: str) -> Iterator[None]:
    """Print a SageError, or a fault of the machine, as one message on stderr and exit with 2;
    exit with 130 on Ctrl-C.

    The message is printed unchanged: it is not markup, and its lines are not wrapped. Characters
    that the locale does not have are printed as question marks, there and in all other output.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        yield
    except SageError as error:
        _exit_with(program, str(error))
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _exit_with(program, f"{place}{error.strerror}; `sage doctor` shows what to do about it")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _exit_with(program: str, message: str) -> NoReturn:
    text = Text.assemble((f"{program}:", "bold red"), f" {message}")
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)
    raise SystemExit(2) from None


def run(
    main: Callable[..., object], words: Sequence[str] | None = None, *, program: str | None = None
) -> None:
    """Run a job's ``main`` with the command line ``words``; None: the process's own.

    ``main``'s parameters become options, together with those of every job (parallelism,
    savepoint), which it receives as its parameter ``options``, a FlinkOptions.
    """
    app = typer.Typer(add_completion=False)
    app.command()(with_flink_options(main))
    app(words, prog_name=program)


def with_flink_options(main: Callable[..., object]) -> Callable[..., object]:
    """``main`` with the options of every job in place of its parameter ``options``."""
    own = inspect.signature(main).parameters
    common = inspect.signature(_flink_options).parameters

    def command(**arguments: Any) -> object:
        options = _flink_options(**{name: arguments.pop(name) for name in common})
        return main(**arguments, options=options)

    visible = [parameter for name, parameter in own.items() if name != "options"]
    # Typer finds the options in these two.
    command.__signature__ = inspect.Signature([*visible, *common.values()])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*visible, *common.values())}
    command.__doc__ = main.__doc__
    return command


RecordTimeout = Annotated[
    float,
    typer.Option(
        min=1, help="How long Python steps may take for one record before it is a dead letter."
    ),
]
StateBackend = Annotated[
    Literal["heap", "rocksdb"],
    typer.Option(help="The place of keyed state: rocksdb is for more than fits into memory."),
]


def _flink_options(
    parallelism: Annotated[int, typer.Option(min=1, help="Subtasks of each step.")] = 1,
    step_parallelism: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP=N", help="Subtasks of one step; may be repeated."),
    ] = None,
    from_savepoint: Annotated[
        str,
        typer.Option(
            metavar="PATH|latest",
            help="The state to resume from; `sage jobs savepoints NAME` lists them.",
        ),
    ] = "",
    drop_state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEP", help="A step removed from the pipeline: its state may be dropped."
        ),
    ] = None,
    bundle_ms: Annotated[
        int,
        typer.Option(
            min=1,
            max=10_000,
            help="How long a Python step collects records: longer is cheaper, and slower.",
        ),
    ] = 10,
    record_timeout_s: RecordTimeout = 300.0,
    state_backend: StateBackend = "heap",
) -> "sage.flow.FlinkOptions":
    return sage.flow.FlinkOptions(
        parallelism=parallelism,
        steps=step_options(step_parallelism or ()),
        savepoint=from_savepoint,
        drop_state=tuple(drop_state or ()),
        bundle_s=bundle_ms / 1000,
        record_timeout_s=record_timeout_s,
        state_backend=state_backend,
    )


def step_options(words: Sequence[str]) -> "dict[str, sage.flow.StepOptions]":
    """The options of ``STEP=N`` words.

    Raises:
        ConfigError: a word has another form.
    """
    options = {}
    for word in words:
        step, _, count = word.rpartition("=")
        if not step or not count.isdecimal() or int(count) < 1:
            raise ConfigError(f"--step-parallelism must be STEP=N, such as embed=4, got {word!r}")
        options[step] = sage.flow.StepOptions(parallelism=int(count))
    return options

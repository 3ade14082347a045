"""How a job, and ``sage`` itself, begins and ends for the one who started it."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import sage_flink as sage
from sage_flink.common import SageError


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


def run(
    main: Callable[..., object], words: Sequence[str] | None = None, *, program: str | None = None
) -> None:
    """Run a job's ``main`` by the command line ``words``; None: the process's own.

    ``main``'s parameters become options, and with them those that every job has (parallelism,
    savepoint), which it gets as its parameter ``options``, a FlinkOptions.
    """
    app = typer.Typer(add_completion=False)
    app.command()(with_flink_options(main))
    app(words, prog_name=program)


def with_flink_options(main: Callable[..., object]) -> Callable[..., object]:
    """``main`` with the options that every job has in the place of its parameter ``options``."""
    own = inspect.signature(main).parameters
    common = inspect.signature(_flink_options).parameters

    def started(**given: Any) -> object:
        options = _flink_options(**{name: given.pop(name) for name in common})
        return main(**given, options=options)

    shown = [parameter for name, parameter in own.items() if name != "options"]
    # What typer looks at to find the options.
    started.__signature__ = inspect.Signature([*shown, *common.values()])  # type: ignore[attr-defined]
    started.__annotations__ = {p.name: p.annotation for p in (*shown, *common.values())}
    started.__doc__ = main.__doc__
    return started


def _flink_options(
    parallelism: Annotated[int, typer.Option(min=1, help="Subtasks of each step.")] = 1,
    from_savepoint: Annotated[
        str,
        typer.Option(
            metavar="PATH|latest",
            help="The state to go on from; `sage jobs savepoints NAME` lists them.",
        ),
    ] = "",
    drop_state: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP", help="A step gone from the pipeline: its state may go too."),
    ] = None,
    bundle_ms: Annotated[
        int,
        typer.Option(
            min=1,
            max=10_000,
            help="How long a Python step gathers records: more costs less and answers later.",
        ),
    ] = 10,
) -> "sage.flow.FlinkOptions":
    return sage.flow.FlinkOptions(
        parallelism=parallelism,
        savepoint=from_savepoint,
        drop_state=tuple(drop_state or ()),
        bundle_s=bundle_ms / 1000,
    )

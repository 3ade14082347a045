"""Lines over time, in the terminal (plotext) or as a file (matplotlib)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sage_flink.cli.output import console
from sage_flink.common import ConfigError
from sage_flink.tsdb import Aggregate

HEIGHT = 20
ENDINGS = (".png", ".svg")
Lines = dict[str, tuple[list[datetime], list[float]]]


def draw(found: Sequence[Aggregate], title: str, file: Path | None) -> None:
    """Draw the only function of the aggregates, a line for each group.

    Raises:
        ConfigError: the file ends neither with .png nor with .svg, or cannot be written; or the
            packages for plots are missing.
    """
    lines = _lines(found)
    if not lines:
        raise ConfigError("there is no number to draw; stddev needs two points in a window")
    try:
        if file is None:
            _in_terminal(lines, title)
        else:
            _into_file(lines, title, file)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'sage-flink[plots]'") from error


def _lines(found: Sequence[Aggregate]) -> Lines:
    lines: Lines = {}
    for one in found:
        (value,) = one.values.values()
        if isinstance(value, int | float):
            label = " ".join(f"{name}={value}" for name, value in one.tags.items())
            times, values = lines.setdefault(label, ([], []))
            times.append(datetime.fromtimestamp(one.start_ns / 1e9, UTC))
            values.append(value)
    return lines


def _in_terminal(lines: Lines, title: str) -> None:
    import plotext  # type: ignore[import-untyped]

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(console.width, HEIGHT)
    for label, (times, values) in lines.items():
        plotext.plot([time.timestamp() for time in times], values, label=label or None)
    every = sorted(time for times, _ in lines.values() for time in times)
    ends = [every[0], every[-1]] if every[0] < every[-1] else [every[0]]
    form = "%H:%M:%S" if every[0].date() == every[-1].date() else "%Y-%m-%d %H:%M"
    plotext.xticks([end.timestamp() for end in ends], [end.strftime(form) for end in ends])
    plotext.title(title)
    print(plotext.uncolorize(plotext.build()))


def _into_file(lines: Lines, title: str, file: Path) -> None:
    from matplotlib.figure import Figure

    if file.suffix not in ENDINGS:
        raise ConfigError(f"{file}: its name must end with {' or '.join(ENDINGS)}")
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for label, (times, values) in lines.items():
        axes.plot(times, values, marker=".", label=label or None)  # type: ignore[arg-type]
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    if any(lines):
        axes.legend()
    try:
        figure.savefig(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    console.print(f"plot in {file}", soft_wrap=True)

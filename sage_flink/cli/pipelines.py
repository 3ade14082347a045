"""``sage explain``, and the lookup of a pipeline by name or path for all commands."""

import importlib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sage_flink.common import ConfigError

YAML = (".yaml", ".yml")


def explain(
    pipeline: Annotated[str, typer.Argument(help="A job of sage_jobs, or a YAML file.")],
    form: Annotated[str, typer.Option(help="text, mermaid or yaml.")] = "text",
) -> None:
    """Draw a pipeline without starting it."""
    from sage_flink import flow

    steps = graph(pipeline)
    if form == "yaml":
        print(flow.to_yaml(steps, _words()), end="")
    elif form in ("text", "mermaid"):
        drawn: Literal["text", "mermaid"] = "mermaid" if form == "mermaid" else "text"
        print(flow.explain(steps, drawn))
    else:
        raise ConfigError(f"--form must be text, mermaid or yaml, got {form!r}")


def graph(pipeline: str) -> Any:
    """The graph of a job of sage_jobs, or of a YAML file."""
    if pipeline.endswith(YAML):
        from sage_flink import flow

        return flow.from_yaml(_text(pipeline), _words())
    return job(pipeline).build()


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"{path}: {reason}; give the path of a YAML file, or a job: {', '.join(jobs())}"
        ) from error


def job(name: str) -> Any:
    """The module of the job called ``name``, with its functions ``build`` and ``main``."""
    if name not in jobs():
        raise ConfigError(
            f"no job {name!r}; give one of {', '.join(jobs())}, or the path of a YAML file"
        )
    try:
        return importlib.import_module(f"sage_jobs.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"job {name!r} needs {error.name}, which is not installed: "
            "pip install 'sage-flink[flink]', or `bash infra/setup.sh` in a checkout"
        ) from error


def jobs() -> list[str]:
    """The names of the modules of sage_jobs with a ``build``; does not import them."""
    import sage_jobs

    modules = Path(sage_jobs.__path__[0]).glob("*.py")
    return sorted(path.stem for path in modules if "\ndef build(" in path.read_text())


def _words() -> Any:
    import sage_connectors
    from sage_flink import db, flow, inference, operators, tsdb

    return flow.vocabulary(sage_connectors, db, tsdb, inference, operators)

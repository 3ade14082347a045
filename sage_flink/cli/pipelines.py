"""``sage explain``, and the pipelines that commands take: a job's name, a .py or a YAML file."""

import contextlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import typer

from sage_flink.common import ConfigError, PipelineError

YAML = (".yaml", ".yml")
FILES = (*YAML, ".py")


def explain(
    pipeline: Annotated[str, typer.Argument(help="A job of sage_jobs, a .py or a YAML file.")],
    form: Annotated[str, typer.Option(help="text, mermaid or yaml.")] = "text",
) -> None:
    """Draw a pipeline without starting it."""
    from sage_flink import flow

    graph = load(pipeline)
    if form == "yaml":
        print(flow.to_yaml(graph, _vocabulary()), end="")
    elif form in ("text", "mermaid"):
        drawing: Literal["text", "mermaid"] = "mermaid" if form == "mermaid" else "text"
        print(flow.explain(graph, drawing))
    else:
        raise ConfigError(f"--form must be text, mermaid or yaml, got {form!r}")


def schema() -> None:
    """Print the JSON Schema of YAML pipelines, for an editor."""
    from sage_flink import flow

    print(json.dumps(flow.yaml_schema(_vocabulary()), indent=2))


def load(pipeline: str) -> Any:
    """The graph of a job of sage_jobs, of a .py file with ``build()``, or of a YAML file.

    Raises:
        ConfigError: there is no such job or file, or a package that it needs is missing.
        PipelineError: the file has no pipeline, or a wrong one.
    """
    if pipeline.endswith(YAML):
        from sage_flink import flow

        return flow.from_yaml(read_text(pipeline), _vocabulary(), pipeline)
    module = _program(pipeline) if pipeline.endswith(".py") else job(pipeline)
    if not callable(build := getattr(module, "build", None)):
        raise PipelineError(
            f"{pipeline}: needs a function build() that returns the graph, such as "
            "sage.flow.read(...).write(...)"
        )
    return build()


@contextlib.contextmanager
def errors_in(pipeline: str) -> Iterator[None]:
    """Errors in the block name lines of the file, if it is YAML."""
    from sage_flink import flow

    if not pipeline.endswith(YAML):
        yield
        return
    with flow.yaml_errors(read_text(pipeline), pipeline):
        yield


def read_text(path: str) -> str:
    """The text of a pipeline's file.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"{path}: {problem}; give the path of a .py or YAML file, or a job: {', '.join(jobs())}"
        ) from error


def job(name: str) -> ModuleType:
    """The module of the job called ``name``; it has ``build`` and ``main``."""
    if name not in jobs():
        raise ConfigError(
            f"no job {name!r}; give one of {', '.join(jobs())}, or the path of a .py or YAML file"
        )
    try:
        return importlib.import_module(f"sage_jobs.{name}")
    except ModuleNotFoundError as error:
        raise _missing(f"job {name!r}", error) from error


def jobs() -> list[str]:
    """The modules of sage_jobs that have a ``build``; found without importing them."""
    import sage_jobs

    modules = Path(sage_jobs.__path__[0]).glob("*.py")
    return sorted(
        path.stem for path in modules if "\ndef build(" in path.read_text(encoding="utf-8")
    )


def _program(path: str) -> ModuleType:
    """The module of a .py file, imported as ``python FILE`` would find its neighbours."""
    read_text(path)
    file = Path(path).resolve()
    name = f"sage_pipeline_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise _missing(path, error) from error
    finally:
        sys.path.remove(str(file.parent))
    _send_by_value(module)
    return module


def _send_by_value(module: ModuleType) -> None:
    """A worker cannot import the file, so its functions and classes travel with the job."""
    try:
        import cloudpickle  # type: ignore[import-untyped]  # installed with apache-flink
    except ModuleNotFoundError:
        return
    cloudpickle.register_pickle_by_value(module)


def _missing(what: str, error: ModuleNotFoundError) -> ConfigError:
    return ConfigError(
        f"{what} needs {error.name}, which is not installed: "
        "pip install 'sage-flink[flink]', or `bash infra/setup.sh` in a checkout"
    )


def _vocabulary() -> Any:
    import sage_connectors
    from sage_flink import db, flow, inference, operators, tsdb

    return flow.vocabulary(sage_connectors, db, tsdb, inference, operators)

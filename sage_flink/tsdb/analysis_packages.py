"""The packages of the extra ``analysis``, which are imported where they are used."""

from collections.abc import Iterator
from contextlib import contextmanager

from sage_flink.common.errors import ConfigError


@contextmanager
def analysis_packages() -> Iterator[None]:
    """For a block that imports one of them.

    Raises:
        ConfigError: it is missing; the message names it and the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'sage-flink[analysis]'") from error

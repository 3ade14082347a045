"""Adapters by name: entry points of a group, so that another package can bring one more."""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from sage_flink.common.errors import ConfigError


def adapter(group: str, name: str, shipped: Mapping[str, str]) -> Any:
    """What the entry point ``name`` of ``group`` stands for.

    ``shipped`` is what comes with sage, for a checkout that is on the path but not installed.

    Raises:
        ConfigError: there is none of that name (the message lists them), or its package is
            missing.
    """
    known = {**{point.name: point.value for point in entry_points(group=group)}, **shipped}
    if name not in known:
        raise ConfigError(
            f"store {name!r}: {group} knows {', '.join(sorted(known))}; "
            f"another one comes with the package that offers an entry point {group!r}"
        )
    module, _, attribute = known[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"store {name!r}: {error.name} is missing: pip install 'sage-flink[{name}]'"
        ) from error

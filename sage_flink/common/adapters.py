"""Adapters by name: those of sage, and entry points by which other packages add more."""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from sage_flink.common.errors import ConfigError


def adapter(group: str, name: str, shipped: Mapping[str, str]) -> Any:
    """The object that the entry point ``name`` of ``group`` refers to.

    ``shipped`` are the adapters of sage, also for a checkout that is not installed.

    Raises:
        ConfigError: the name is unknown (the message lists the known ones), or the adapter's
            package is missing.
    """
    place = shipped.get(name)
    if place is None:  # entry points are in the metadata of every package: 20 ms to read
        known = {**{point.name: point.value for point in entry_points(group=group)}, **shipped}
        if name not in known:
            raise ConfigError(
                f"store {name!r}: {group} knows {', '.join(sorted(known))}; "
                f"a package adds another one by an entry point {group!r}"
            )
        place = known[name]
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"store {name!r}: {error.name} is missing: pip install 'sage-flink[{name}]'"
        ) from error

"""Where a secret is: ``env:NAME``, an environment variable, or ``file:/PATH``, a file.

A reference may be shown, logged and stored; what it resolves to may not. An error names the
variable or the file, never a part of the secret.
"""

import os
import re
from pathlib import Path

from sage_flink.common.errors import ConfigError

#: No ``}``: on its way to Kafka's client a reference is between braces.
REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)|file:(/[^\x00-\x1f}]+)")


def is_reference(text: str) -> bool:
    """Whether it is a reference to a secret.

    >>> [is_reference(text) for text in ("env:TOKEN", "file:/run/secrets/a", "env:", "swordfish")]
    [True, True, False, False]
    """
    return bool(REFERENCE.fullmatch(text))


def resolve(reference: str, where: str) -> str:
    """The secret, without white space at its ends; empty for an empty reference.

    Raises:
        ConfigError: there is no such variable or file here, or it is empty.
    """
    if not reference:
        return ""
    found = REFERENCE.fullmatch(reference)
    if found is None:
        raise ConfigError(f"{where} must be a reference: env:NAME or file:/PATH")
    variable, path = found.groups()
    if variable:
        if not (value := os.environ.get(variable, "").strip()):
            raise ConfigError(f"{where}: the environment variable {variable} is not set here")
        return value
    try:
        value = Path(path).read_text().strip()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{where}: {path} cannot be read here: {reason}") from None
    if not value:
        raise ConfigError(f"{where}: {path} is empty")
    return value

"""Front matter: the fields before the text of a markdown file, in YAML or TOML."""

import re
import tomllib
from typing import Any

_FENCED = re.compile(r"\A(---|\+\+\+)[ \t]*\r?\n(.*?)(?:\r?\n)?^\1[ \t]*(?:\r?\n|\Z)", re.S | re.M)
#: A field that fits on one line, without the quotes around its value.
_LINE = re.compile(r"^(\w[\w-]*)[ \t]*[:=][ \t]*[\"']?(.*?)[\"']?[ \t]*\r?$", re.M)
#: What JSON has; other values, such as dates, become text.
_PLAIN = (str, int, float, bool, type(None))


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The fields, empty without a front matter that can be read, and the rest of the text."""
    found = _FENCED.match(text)
    if found is None:
        return {}, text
    fields = _fields(found[1], found[2])
    return (fields, text[found.end() :]) if fields is not None else ({}, text)


def _fields(fence: str, source: str) -> dict[str, Any] | None:
    import yaml

    try:
        found = tomllib.loads(source) if fence == "+++" else yaml.safe_load(source)
    except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError, RecursionError):
        return dict(_LINE.findall(source)) or None  # such as "title: Streams: an overview"
    if found is None:
        return {}
    return {str(k): _plain(v) for k, v in found.items()} if isinstance(found, dict) else None


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return value if isinstance(value, _PLAIN) else str(value)

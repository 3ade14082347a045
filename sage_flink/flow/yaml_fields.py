"""The fields of a spec in YAML: their values by the type hints of the spec's dataclass.

A field whose type is a dataclass is written as named fields. Where there are several to choose from
(a format, for example), it is written as one word with its fields, as a step's spec is:
``format: {json: {fields: {id: $.id}}}``.
"""

import dataclasses
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from sage_flink.common.errors import PipelineError, SageError
from sage_flink.flow.yaml_places import within

_PLAIN: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def word_of(kind: type) -> str:
    """The word of a class: ``Chunk`` is ``chunk``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def default_of(f: "dataclasses.Field[Any]") -> Any:
    """The default of a dataclass's field, made if it has a factory; MISSING without a default."""
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def value_in_yaml(value: Any) -> Any:
    """A value in YAML; of options only those that are not the default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return fields_in_yaml(value)
    return msgspec.to_builtins(value)


def fields_in_yaml(value: Any) -> dict[str, Any]:
    """The fields of a spec that are not the default, in YAML."""
    fields: dict[str, Any] = {}
    for f in dataclasses.fields(value):
        if f.init and f.compare and getattr(value, f.name) != default_of(f):
            fields[f.name] = field_in_yaml(value, f.name)
    return fields


def field_in_yaml(spec: Any, name: str) -> Any:
    """The field ``name`` of a spec or node in YAML."""
    return _in_yaml(getattr(spec, name), get_type_hints(type(spec))[name])


def _in_yaml(value: Any, hint: Any) -> Any:
    if (of_items := hint_of_items(hint)) is not None:
        return {key: _in_yaml(item, of_items) for key, item in value.items()}
    plain = value_in_yaml(value)
    return {word_of(type(value)): plain} if len(choices_of(hint)) > 1 else plain


def check_fields(where: str, kind: Any, values: dict[str, Any], ready: str = "") -> dict[str, Any]:
    """The values of the named fields of ``kind``; that of ``ready`` is taken as it is.

    Raises:
        PipelineError: a field is unknown or missing, or its value is of the wrong type.
    """
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    if unknown := sorted(str(name) for name in values if name not in fields):
        with within(unknown[0]):
            knows = ", ".join(sorted(fields))
            raise PipelineError(f"{where}: unknown field {unknown[0]!r}; it knows: {knows}")
    missing = dataclasses.MISSING
    for name, f in fields.items():
        if name not in values and f.default is missing and f.default_factory is missing:
            raise PipelineError(f"{where}: needs a field `{name}:`")
    hints = get_type_hints(kind)
    converted = {}
    for key, value in values.items():
        with within(key):
            converted[key] = value if key == ready else _value(where, key, value, hints[key])
    return converted


def _value(where: str, name: str, value: Any, hint: Any) -> Any:
    if (of_items := hint_of_items(hint)) is not None:
        if not isinstance(value, dict):
            raise PipelineError(f"{where}: {name} must be named fields, got {value!r:.100}")
        items = {}
        for key, item in value.items():
            with within(key):
                items[key] = _value(where, f"{name}: {key}", item, of_items)
        return items
    if choices := choices_of(hint):
        return _choice(where, name, value, choices, may_be_none=NoneType in get_args(hint))
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        expected = re.sub(r", got `[^`]*`", "", str(error)).removeprefix("Expected ")
        required = _PLAIN.get(hint, expected)
        if get_origin(hint) is Literal:
            required = f"one of {', '.join(map(repr, get_args(hint)))}"
        raise PipelineError(f"{where}: {name} must be {required}, got {value!r:.100}") from error
    except SageError as error:
        raise PipelineError(f"{where}: {name}: {error}") from error


def hint_of_items(hint: Any) -> Any:
    """The hint of the items of a mapping to dataclasses; None for any other hint."""
    is_mapping = get_origin(hint) is Mapping
    return get_args(hint)[1] if is_mapping and choices_of(get_args(hint)[1]) else None


def choices_of(hint: Any) -> dict[str, Any]:
    """Word -> dataclass, for each that the field may be."""
    kinds = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    return {word_of(kind): kind for kind in kinds if dataclasses.is_dataclass(kind)}  # type: ignore[arg-type]


def _choice(
    where: str, name: str, value: Any, choices: dict[str, Any], *, may_be_none: bool
) -> Any:
    if value is None and may_be_none:
        return None
    if len(choices) == 1:
        return _options(where, name, value, next(iter(choices.values())))
    one = {value: {}} if isinstance(value, str) else value
    if not isinstance(one, dict) or len(one) != 1 or next(iter(one)) not in choices:
        words = ", ".join(sorted(choices))
        raise PipelineError(f"{where}: {name} must be one of {words}, got {value!r:.100}")
    word, fields = next(iter(one.items()))
    with within(word):
        return _options(where, f"{name}: {word}", fields or {}, choices[word])


def _options(where: str, name: str, value: Any, kind: Any) -> Any:
    if not isinstance(value, dict):
        raise PipelineError(f"{where}: {name} must be named fields, got {value!r:.100}")
    fields = check_fields(f"{where}: {name}", kind, value)
    try:
        return kind(**fields)
    except SageError as error:
        raise PipelineError(f"{where}: {error}") from error

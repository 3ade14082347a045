"""JSON Schema of YAML pipelines, for editors that complete and check them.

It has what the types say: verbs, words, fields and their types. Limits of a value and the shape of
the whole graph are found by :func:`~sage_flink.flow.from_yaml` and :func:`~sage_flink.flow.check`.

Source: JSON Schema, draft 2020-12.
"""

import dataclasses
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec

from sage_flink.flow.yaml_fields import choices_of, hint_of_items
from sage_flink.flow.yaml_form import PLACES, VERBS, Vocabulary, fits, place_of_spec

Schema = dict[str, Any]
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 100}


def yaml_schema(words: Vocabulary) -> Schema:
    """The schema of the pipelines that ``words`` can write.

    >>> from sage_flink import operators
    >>> from sage_flink.flow import vocabulary
    >>> schema = yaml_schema(vocabulary(operators))
    >>> schema["required"], schema["$defs"]["chunk"]["required"]
    (['steps'], ['tokens_max', 'overlap'])
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of sage",
        "type": "object",
        "properties": {
            "steps": {"type": "array", "items": {"oneOf": [_step(v, words) for v in VERBS]}},
            "dead_letters": _spec("dead_letters", words),
        },
        "required": ["steps"],
        "additionalProperties": False,
        "$defs": {word: _fields(kind) for word, kind in words.items()},
    }


def _step(verb: str, words: Vocabulary) -> Schema:
    kind, key, spec_field = VERBS[verb]
    step = _fields(kind, without=("name", spec_field))
    step["properties"] = {verb: _NAME, **step["properties"]}
    step["required"] = [verb, *step["required"]]
    if spec_field:
        step["properties"][key] = _spec(place_of_spec(verb, key), words)
        step["required"].append(key)
    return step


def _spec(place: str, words: Vocabulary) -> Schema:
    """One word with its fields; the word alone where it needs none."""
    assert place in PLACES
    kinds = {word: kind for word, kind in words.items() if fits(kind, place)}
    fields = {word: {"$ref": f"#/$defs/{word}"} for word in kinds}
    return _one_of(fields, [word for word, kind in kinds.items() if not _fields(kind)["required"]])


def _one_of(fields: dict[str, Schema], alone: list[str]) -> Schema:
    """A mapping of one word to its fields, or a word alone."""
    mapping = {
        "type": "object",
        "properties": {word: {"anyOf": [of, {"type": "null"}]} for word, of in fields.items()},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"anyOf": [mapping, {"enum": alone}]} if alone else mapping


def _fields(kind: Any, without: tuple[str, ...] = ()) -> Schema:
    """The fields of a dataclass."""
    hints = get_type_hints(kind)
    fields = [f for f in dataclasses.fields(kind) if f.init and f.name not in without]
    missing = dataclasses.MISSING
    return {
        "type": "object",
        "properties": {f.name: _value(hints[f.name]) for f in fields},
        "required": [
            f.name for f in fields if f.default is missing and f.default_factory is missing
        ],
        "additionalProperties": False,
    }


def _value(hint: Any) -> Schema:
    if (of_items := hint_of_items(hint)) is not None:
        return {"type": "object", "additionalProperties": _value(of_items)}
    choices = choices_of(hint)
    if not choices:
        return msgspec.json.schema(hint)
    kinds = {word: _fields(kind) for word, kind in choices.items()}
    if len(kinds) == 1:
        found = next(iter(kinds.values()))
    else:
        found = _one_of(kinds, [word for word, of in kinds.items() if not of["required"]])
    return {"anyOf": [found, {"type": "null"}]} if NoneType in get_args(hint) else found

"""The JSON Schema of YAML pipelines accepts what from_yaml reads, and refuses wrong shapes."""

import json

import jsonschema
import pytest
import yaml
from yaml_pipelines import GOOD, STATEFUL, WORDS, WRONG

import sage_flink as sage
from sage_flink.common import PipelineError
from sage_flink.flow.yaml_form import VERBS

SCHEMA = sage.flow.yaml_schema(WORDS)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
#: Mistakes that are no shape: the text is no YAML, or only from_yaml knows the limit.
NO_SHAPE = {"no YAML", "a tab", "a key twice", "too little", "an option"}


def test_it_is_a_json_schema_with_every_verb():
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(SCHEMA)))
    steps = SCHEMA["properties"]["steps"]["items"]["oneOf"]
    assert [step["required"][0] for step in steps] == list(VERBS)


@pytest.mark.parametrize("text", [GOOD, STATEFUL], ids=["good", "stateful"])
def test_a_pipeline_that_can_be_read_is_valid(text):
    assert sage.flow.from_yaml(text, WORDS)
    VALIDATOR.validate(yaml.safe_load(text))


def test_a_function_of_batches_is_not_one_of_records():
    step = {"input": "in", "with": {"lookup": {"field": "a", "into": "b", "table": {
        "http_table": {"url": "http://x/{key}"}}}}}  # fmt: skip
    text = yaml.safe_dump({"steps": [{"map_batches": "user", **step}]})

    assert sage.flow.from_yaml(text, WORDS).nodes[0].function.table.url == "http://x/{key}"
    VALIDATOR.validate(yaml.safe_load(text))
    with pytest.raises(PipelineError, match="lookup is for `map_batches:`, not for `flat_map:`"):
        sage.flow.from_yaml(text.replace("map_batches", "flat_map"), WORDS)
    with pytest.raises(PipelineError, match="chunk is for `flat_map:`, not for `map_batches:`"):
        sage.flow.from_yaml("steps: [{map_batches: x, input: i, with: chunk}]", WORDS)


def test_options_and_formats_are_one_word_with_its_fields():
    source = {"kafka": {"topic": "t", "format": {"json": {"fields": {"id": "$.id"}}}}}
    VALIDATOR.validate({"steps": [{"read": "in", "from": source}]})
    source["kafka"]["format"] = "json"
    VALIDATOR.validate({"steps": [{"read": "in", "from": source}]})
    source["kafka"]["format"] = {"json": {}, "text": {}}
    assert not VALIDATOR.is_valid({"steps": [{"read": "in", "from": source}]})


@pytest.mark.parametrize("kind", sorted(set(WRONG) - NO_SHAPE))
def test_a_wrong_shape_is_refused(kind):
    was, becomes, _, _ = WRONG[kind]

    assert not VALIDATOR.is_valid(yaml.safe_load(GOOD.replace(was, becomes)))

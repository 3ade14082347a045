"""Fields of a value: a missing field or a wrong type is rejected with a readable reason."""

import pytest

from sage_flink.common import Record, Rejected
from sage_flink.common.values import require_field, require_mapping, require_text


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        ({}, str, "field 'doc' is missing"),
        ({"doc": 3}, str, "field 'doc' must be text, got int"),
        ({"doc": True}, int, "field 'doc' must be a whole number, got bool"),
        ({"doc": "x"}, float, "field 'doc' must be a number, got str"),
        ("text", str, "the value must be named fields, got str"),
    ],
)
def test_a_missing_or_wrong_field_is_rejected_with_its_reason(value, kind, reason):
    with pytest.raises(Rejected, match=f"^{reason}$"):
        require_field(Record("a", value), "doc", kind)


def test_a_field_within_a_field_is_read_the_same_way():
    assert require_field({"score": 1}, "score", float) == 1.0
    with pytest.raises(Rejected, match="must be named fields with 'score', got str"):
        require_field("passage", "score", float)


def test_a_text_must_not_be_empty():
    assert require_text({"text": "x"}, "text") == "x"
    with pytest.raises(Rejected, match="field 'text' is empty"):
        require_text({"text": " "}, "text")


def test_the_fields_of_a_record_are_its_value():
    assert require_mapping(Record("a", {"x": 1})) == {"x": 1}

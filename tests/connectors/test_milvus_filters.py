"""Expressions of Milvus: what it cannot say is refused, and a prefix is an order of texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_connectors.milvus_filters import _after, expression
from sage_flink.common import Rejected
from sage_flink.db import RowFilter, field

LABELS = ("doc", "version")


@pytest.mark.parametrize("name", ["][", "a[0]", "x]", "[", "a/b", "/", 'q"', "b\\", "a~1b", "\n"])
def test_a_name_that_would_end_the_server_or_is_never_found_is_refused(name: str) -> None:
    for where in (field(name) == 1, ~field(name).exists(), field("meta")[name].like("a%")):
        with pytest.raises(Rejected, match="Milvus cannot find a name"):
            expression(where, LABELS)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (field("a").like("%b"), "by their beginning only"),
        (field("a").like("a_b"), "by their beginning only"),
        (field("a").like("a%b%"), "by their beginning only"),
        (field("a") == -(2**63), "Milvus has no number -9223372036854775808"),
        (field("meta")[""] == 1, "Milvus cannot find a name that is empty"),
    ],
)
def test_what_milvus_cannot_say_is_refused(where: RowFilter, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        expression(where, LABELS)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (field("year") >= 2024, '$meta["year"] >= 2024'),
        (field("year") != 2024, '$meta["year"] < 2024 or $meta["year"] > 2024'),
        (field("new") != True, '$meta["new"] == false'),  # noqa: E712
        (field("a").in_([1, "b", 2]), '$meta["a"] in [1, 2] or $meta["a"] in ["b"]'),
        (field("a").in_([]), "id in []"),
        (field("tags").contains(1), 'json_contains($meta["tags"], 1.0)'),
        (field("meta")["k"][0] == 'q"', '$meta["meta"]["k"][0] == "q\\""'),
        (field("a").like("ab\\%%"), '$meta["a"] >= "ab%" and $meta["a"] < "ab&"'),
        (field("id") == "x", 'id == "x"'),
        (field("id") == 5, "id in []"),
        (field("doc") != "x", 'doc > "" and (doc < "x" or doc > "x")'),
        (
            ~((field("a") == 1) & (field("b") == 2.5)),
            'not (($meta["a"] == 1) and ($meta["b"] == 2.5))',
        ),
    ],
)
def test_the_expression_of_a_filter(where: RowFilter, expected: str) -> None:
    assert expression(where, LABELS) == expected


def test_a_column_that_sage_did_not_make_is_refused() -> None:
    with pytest.raises(Rejected, match="'year' is a column of a schema that sage did not make"):
        expression(field("year") == 1, (*LABELS, "year"))


def test_a_document_is_a_dynamic_field_in_a_collection_without_the_column() -> None:
    assert expression(field("doc") == "x", ()) == '$meta["doc"] > "" and ($meta["doc"] == "x")'


EDGES = st.sampled_from("a\u007f\ud7ff\ue000\uffff\U00010000\U0010ffff")


@given(prefix=st.text(EDGES, max_size=3), text=st.text(EDGES, max_size=4))
def test_all_texts_with_a_prefix_are_before_the_text_after_it(prefix: str, text: str) -> None:
    after = _after(prefix)

    assert (prefix <= text and (not after or text < after)) == text.startswith(prefix)

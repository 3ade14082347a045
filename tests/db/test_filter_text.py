"""The text form of a filter: what it means, and where a wrong one goes wrong."""

import re
import time

import pytest
from filter_samples import random_filters, random_rows
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.common import Rejected
from sage_flink.db import RowFilter, field, parse_filter
from sage_flink.db.filters import CONDITIONS_MAX, DEPTH_MAX, Not

ROW = {
    "id": "r1",
    "year": 2024,
    "price": 9.5,
    "lang": "de",
    "new": True,
    "tags": ["red", 7],
    "meta": {"author": "Öl", "first name": "A", "n": [1, {"k": 2}]},
    "in": 3,
    "title": "xaby c",
    "doc": "",
}


@pytest.mark.parametrize(
    "text",
    [
        "year == 2024",
        "year == 2024.0",
        "2023 < year <= 2024",
        "2024 == year and 9 < price",
        "price >= -1.5",
        'lang in ["en", "de"]',
        'lang not in ["en"]',
        'lang in ("de",)',
        "lang != 'en' or year == 1",
        '"red" in tags and 7 in tags',
        "tags.contains('red')",
        '"blue" not in tags',
        "tags[1] == 7",
        "new == true and new == True and new != false",
        "meta.author == 'Öl'",
        'meta["first name"].like("A%")',
        "meta.n[1].k == 2",
        'field("in") == 3',
        "meta.exists() and not absent.exists()",
        "not doc.exists()",
        "id.like('r_')",
        "not (year == 1 or year == 2)",
        "year == 2024  # the newest\nand price > 1",
        "(year == 2024)",
        "title.like('%a_%%c')",
    ],
)
def test_a_text_that_is_true_of_a_row(text: str) -> None:
    assert parse_filter(text).matches(ROW)
    assert not parse_filter(f"not ({text}\n)").matches(ROW)


@pytest.mark.parametrize(
    "text",
    [
        "absent == 1",
        "absent != 1",
        "year == '2024'",
        "year != '2024'",
        "new == 1",
        "lang < 5",
        "lang.like('d')",
        r'lang.like("d\%")',
        "meta == 1",
        "year.contains(2024)",
        "lang.contains('d')",
        "tags[2] == 7",
        "lang in []",
        f'tags["{"9" * 5000}"] == 1',
    ],
)
def test_a_text_that_is_false_of_a_row(text: str) -> None:
    assert not parse_filter(text).matches(ROW)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("year == 1, lang == 'x'", "conditions are joined by and, or"),
        ("class == 1", 'is written field("class")'),
        ("µ == 1", "Python reads this name as"),
        ("meta.ﬁ == 1", "Python reads this name as"),
        ("year = 2024", "at character 1: invalid syntax"),
        ("year == ", "at character"),
        ("year", "at character 1: a condition is needed here"),
        ("year == lang", "at character 9: a value is needed here"),
        ("größe == x", "at character 10: a value is needed here"),
        ("year == None", "at character 9: a value is needed here"),
        ("year is None", "at character 1: is compares nothing here"),
        ("year == 1 and", "at character"),
        ("year == 1) or (id != ''", "at character 1: the brackets do not match"),
        ("(year == 1", "the brackets do not match"),
        ("year in 5", "at character 9: after in comes a list"),
        ("year in [lang]", "at character 10: a value is needed here"),
        ("f(year) == 1", "at character 1: a field is needed here"),
        ("lang.startswith('d')", "at character 1: the functions are like(text)"),
        ("lang.like(5)", "at character 1: the functions are like(text)"),
        ("lang.like('d', x=1)", "at character 1: the functions are like(text)"),
        ("__import__('os').system('x')", "at character 1: a field is needed here"),
        ("[x for x in year]", "at character 1: a condition is needed here"),
        ("(lambda: 1)()", "at character 1: a condition is needed here"),
        ("year + 1 == 2", "at character 1: a field is needed here"),
        ("f'{year}' == 1", "at character 1: a field is needed here"),
        ("new < true", "at character 1: new < true: true and false have no order"),
        ("vector == 1", "at character 1: 'vector' is searched for"),
        ("id[0] == 'a'", "at character 1: 'id' is text, it has no place 0"),
        ("year == 99999999999999999999", "at character 1: year: a whole number has 64 bits"),
        ("price == 1e999", "at character 1: price: a number must be finite"),
        ("year == 1\nand lang == x", "at line 2, character 13: a value is needed here"),
        ("year == b'x'", "at character 9: a value is needed here"),
        ("a == 1\0", "it cannot be read"),
        ("not " * 5_000 + "a == 1", "filter: "),
        ("(" * 500 + "a == 1" + ")" * 500, "filter: "),
        ("a" + "[0]" * 5_000 + " == 1", "filter: "),
        ("a == 1" + " or a == 1" * CONDITIONS_MAX, "at most 1000 conditions"),
        ("x" * 300_000, "at most 200000 characters"),
    ],
)
def test_a_wrong_text_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(Rejected, match=r"^filter: ") as caught:
        parse_filter(text)

    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_text_of_a_filter_means_the_same() -> None:
    rows = [row.fields | {"id": row.id} for row in random_rows(200, 5)]

    for where in random_filters(300, 6):
        again = parse_filter(str(where))

        assert [again.matches(row) for row in rows] == [where.matches(row) for row in rows]


def test_and_or_and_not_of_python_are_refused() -> None:
    with pytest.raises(TypeError, match=r"combine filters with & \| ~"):
        bool(field("a") == 1 and field("b") == 2)


def test_filters_that_are_nested_too_deep_are_refused() -> None:
    where: RowFilter = field("a") == 1
    for _ in range(DEPTH_MAX - 1):
        where = Not((where,))
    with pytest.raises(Rejected, match="nested more than"):
        Not((where,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: field("a") == None, "got null"),  # noqa: E711
        (lambda: field("a") == [1], "got list"),
        (lambda: field("a") == float("nan"), "must be finite"),
        (lambda: field("a") < True, "no order"),
        (lambda: field("a") == "\ud800", "not Unicode text"),
        (lambda: field("a") == "x" * 70_000, "at most 65535 bytes"),
        (lambda: field("a").in_("abc"), "takes a list"),
        (lambda: field("a").in_(range(20_000)), "at most 10000 values"),
        (lambda: field("a").like(5), "must be text"),
        (lambda: field(""), "must be text"),
        (lambda: field("\ud800"), "must be text"),
        (lambda: field("a")[-1], "an index from 0"),
        (lambda: field("a")[True], "an index from 0"),
        (lambda: field("a")[1.5], "an index from 0"),
        (lambda: field("doc")["x"], "'doc' is text"),
    ],
)
def test_a_value_that_no_field_can_have_is_refused(make, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        make()


@pytest.mark.parametrize("name", ["class", "in", "true", "µ", "ﬁ", "a b", "__debug__", "None"])
def test_the_text_of_a_filter_has_any_name(name: str) -> None:
    for where in (field(name) == 1, field("meta")[name].exists()):
        assert parse_filter(str(where)) == where


def test_a_pattern_takes_no_time_that_grows_with_its_wildcards() -> None:
    where = field("a").like("%a" * 30 + "%c")
    began = time.monotonic()

    assert not where.matches({"a": "a" * 5_000})
    assert where.matches({"a": "a" * 5_000 + "c"})
    assert time.monotonic() - began < 5


@given(
    pattern=st.text("ab%_", max_size=8),
    text=st.text("ab", max_size=8),
)
def test_a_pattern_fits_as_one_that_is_tried_in_every_way_does(pattern: str, text: str) -> None:
    tried = re.compile("".join({"%": ".*", "_": "."}.get(c, c) for c in pattern))

    assert field("a").like(pattern).matches({"a": text}) == bool(tried.fullmatch(text))

"""A test file is left out of a run only if no test in it can be selected."""

from itertools import chain, combinations
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression
from deselected_files import OURS, FileMarks, check_marks, file_marks, is_deselected
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from(["flink", "service", "full", "of_a_plugin"])
EXPRESSIONS = st.recursive(
    NAMES,
    lambda inner: (
        inner.map(lambda one: f"not ({one})")
        | st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda parts: "({}) {} ({})".format(*parts)
        )
    ),
    max_leaves=6,
)


def sets(names: frozenset[str]) -> list[frozenset[str]]:
    found = chain.from_iterable(combinations(names, n) for n in range(len(names) + 1))
    return [frozenset(one) for one in found]


@given(EXPRESSIONS, st.frozensets(NAMES), st.frozensets(NAMES))
def test_a_file_is_left_out_if_the_expression_is_false_for_all_marks_that_its_tests_may_have(
    expression: str, certain: frozenset[str], others: frozenset[str]
) -> None:
    certain, others = certain & OURS, others & OURS

    left_out = is_deselected(expression, FileMarks(certain, certain | others))

    compiled = Expression.compile(expression)
    selected = [
        certain | more
        for more in sets((others - certain) | {"of_a_plugin"})
        if compiled.evaluate(lambda name, /, **_: name in certain | more)  # noqa: B023
    ]
    assert left_out == (not selected)


@pytest.mark.parametrize(
    ("text", "expression", "left_out"),
    [
        ("pytestmark = pytest.mark.flink", "processes and not flink", True),
        ("pytestmark = pytest.mark.flink", "flink and not full", False),
        ("pytestmark = [pytest.mark.flink, *QUIET]", "not flink", True),
        ("if True:\n    pytestmark = pytest.mark.flink", "not flink", False),
        ("pytestmark = pytest.mark.flink\npytestmark = []", "not flink", False),
        ("class Test:\n    pytestmark = pytest.mark.flink", "not flink", False),
        ("@pytest.mark.flink\ndef test(): pass", "not flink", False),
        ("@pytest.mark.flink\ndef test(): pass", "flink or service", False),
        ("@pytest.mark.flink\ndef test(): pass", "service", True),
        ("def test(): pass", "flink or service", True),
        ("def test(): pass", "asyncio", False),
        ("def test(): pass", "flink(of=3)", False),
    ],
)
def test_the_text_says_which_marks_its_tests_have(
    tmp_path: Path, text: str, expression: str, left_out: bool
) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(text)

    assert is_deselected(expression, file_marks(path)) == left_out


def test_marks_of_a_folder_and_of_imported_modules_are_possible_in_a_file() -> None:
    tests = Path(__file__).parents[1]

    assert file_marks(tests / "gateway/test_responses.py").possible >= {"processes"}
    assert file_marks(tests / "drills/test_kill_engine.py").possible >= {"drill"}


def test_a_mark_that_the_text_does_not_say_is_an_error(request: pytest.FixtureRequest) -> None:
    check_marks([request.node])
    request.node.add_marker("gpu")

    with pytest.raises(pytest.UsageError, match=r"marks \['gpu'\]; by its text it has FileMarks"):
        check_marks([request.node])

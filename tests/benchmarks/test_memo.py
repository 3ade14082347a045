"""The corpus of the benchmark ``memo``, and what it counts."""

from benchmark_sage import memo


def test_a_version_changes_one_paragraph_of_each_document() -> None:
    first, second, third = memo.corpora(20, seed=1)

    assert len(first) == 20
    for name, paragraphs in first.items():
        changed = [a != b for a, b in zip(paragraphs, second[name], strict=True)]
        assert changed.count(True) == 1
    assert {name: third[name] for name in second} == second
    assert len(third) == 24


def test_new_chunks_are_those_that_no_version_before_had() -> None:
    versions = [{"a": ["x", "y"], "b": ["x"]}, {"a": ["x", "z"]}, {"c": ["y", "z"]}]

    assert memo.new_chunks(versions) == [2, 1, 0]


def test_chunks_are_those_of_the_job() -> None:
    first, second, third = memo.corpora(5, seed=2)
    chunked = [memo.chunks_of(version) for version in (first, second, third)]

    assert all(len(chunks) > 1 for chunks in chunked[0].values())
    new = memo.new_chunks(chunked)
    assert new[0] == sum(map(len, chunked[0].values()))
    assert 5 <= new[1] < new[0]
    assert new[2] == 0

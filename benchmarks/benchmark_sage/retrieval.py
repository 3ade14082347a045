"""retrieval: which passage a search finds first: by vectors, by words, by both.

The passages are docstrings of the standard library, where they are long without their first
sentence, and the Python reference in parts. Half of the questions are such first sentences, half
name the function ("What does textwrap.dedent do?"); the answer to each is one passage. All sides
search the same rows of one collection with ``full_text=True``, exactly, so no index has a part in
the figures; the model is that of ``rag_ingest``. Each figure is a mean over the questions with
its interval of 95 %, by bootstrap; ``hybrid`` is also compared with ``dense`` question by
question.
"""

import ast
import asyncio
import math
import random
import sysconfig
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap  # type: ignore[import-untyped]

import sage_flink as sage
from benchmark_sage.results import Headline, Result, result
from sage_connectors import http_pool
from sage_flink.common import Record
from sage_flink.db import Rrf, Weighted
from sage_flink.flow.calls.embeddings import embed
from sage_jobs import corpus
from sage_jobs.rag_ingest import RagIngest

TOP_K, BATCH, REQUESTS = 10, 32, 4
TEXT_MIN, TEXT_MAX, WHOLE_MIN, QUESTION_MIN = 80, 900, 20, 25
LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo"}
Row = dict[str, Any]
Ranks = list[int | None]


class Passage(NamedTuple):
    """A text, and the sentence that describes it; empty where it has none."""

    name: str
    text: str
    sentence: str = ""


class Question(NamedTuple):
    """What is asked, and its vector of ``dim`` numbers."""

    text: str
    answer: str  # the name of its passage
    vector: list[float]


def run(*, repeats: int, records: int = 500) -> Result:
    """Every side over ``records`` questions; ``repeats`` draws other questions each time."""
    passages = list(read_passages())
    collection = sage.db.collection(
        f"retrieval_{uuid.uuid4().hex[:8]}", dim=RagIngest().dim, store="memory", full_text=True
    )
    store: Any = collection.open()
    fill(collection, passages)
    sides: dict[str, list[Row]] = {side: [] for side in SIDES}
    pairs = []
    for number in range(repeats):
        questions = draw(passages, records, seed=number)
        ranks = {side: ranks_of(side, store, questions) for side in SIDES}
        for side, found in ranks.items():
            row = {"passages": len(passages), **figures(found)}
            sides[side].append(row)
            print(f"repeat {number + 1}/{repeats}  {side:<16} {row}", flush=True)
        pairs.append(difference(ranks["hybrid"], ranks["dense"]))
        print(f"repeat {number + 1}/{repeats}  hybrid - dense   {pairs[-1]}", flush=True)
    sides["hybrid - dense"] = pairs
    return result("retrieval", seed=0, repeats=repeats, sides=dict(sides), headline=headline(sides))


def read_passages() -> Iterator[Passage]:
    """Docstrings of the standard library, each text once, and the topics of the reference."""
    seen: set[str] = set()
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        if not LEFT_OUT & {*path.relative_to(library).parts}:
            module = ".".join(path.relative_to(library).with_suffix("").parts)
            for passage in _docstrings(path, module.removesuffix(".__init__")):
                if passage.text not in seen:
                    seen.add(passage.text)
                    yield passage
    for document in corpus.python_reference():
        text = document["text"]
        for at in range(0, len(text), TEXT_MAX):
            yield Passage(f"{document['id']}#{at}", text[at : at + TEXT_MAX])


def _docstrings(path: Path, module: str) -> Iterator[Passage]:
    try:
        tree = ast.parse(path.read_text())
    except (SyntaxError, UnicodeDecodeError):
        return
    yield from _of_nodes(tree.body, module)


def _of_nodes(nodes: list[ast.stmt], prefix: str) -> Iterator[Passage]:
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}.{node.name}"
            whole = ast.get_docstring(node) or ""
            first, _, rest = whole.partition("\n\n")
            if len(rest) >= TEXT_MIN:
                yield Passage(name, f"{name}\n{rest[:TEXT_MAX]}", " ".join(first.split()))
            elif len(whole) >= WHOLE_MIN:
                yield Passage(name, f"{name}\n{whole[:TEXT_MAX]}")
            if isinstance(node, ast.ClassDef):
                yield from _of_nodes(node.body, name)


def fill(collection: Any, passages: list[Passage]) -> None:
    """Write all passages with their vectors."""
    found = asyncio.run(vectors([passage.text for passage in passages]))
    writer = collection.writer()
    rows = [
        Record(passage.name, {"vector": vector, "text": passage.text})
        for passage, vector in zip(passages, found, strict=True)
    ]
    assert not writer.write(rows)


async def vectors(texts: list[str]) -> list[bytes]:
    """The vectors of the texts, by the pool."""
    pool, ahead, began_s = http_pool(), asyncio.Semaphore(REQUESTS), time.monotonic()
    done = 0

    async def batch(part: list[str]) -> list[bytes]:
        nonlocal done
        async with ahead:
            made = await embed(pool, RagIngest().model, part)
        done += len(part)
        if done % (BATCH * 32) < BATCH:
            took_s = time.monotonic() - began_s
            print(f"embedded {done} of {len(texts)} texts, {done / took_s:.0f}/s", flush=True)
        return [vector for vector in made if isinstance(vector, bytes)]

    parts = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
    try:
        made = await asyncio.gather(*map(batch, parts))
    finally:
        await pool.aclose()
    return [vector for part in made for vector in part]


def draw(passages: list[Passage], count: int, seed: int) -> list[Question]:
    """Questions with one known answer: half by description, half by name."""
    sentences = Counter(passage.sentence for passage in passages)
    described = [
        passage
        for passage in passages
        if len(passage.sentence) >= QUESTION_MIN and sentences[passage.sentence] == 1
    ]
    chosen = random.Random(seed).sample(described, count)
    asked = [
        (passage.sentence, passage.name)
        if number % 2
        else (f"What does {passage.name} do?", passage.name)
        for number, passage in enumerate(chosen)
    ]
    found = asyncio.run(vectors([text for text, _ in asked]))
    return [
        Question(text, answer, np.frombuffer(vector, "<f4").tolist())
        for (text, answer), vector in zip(asked, found, strict=True)
    ]


#: Side -> the rows that it finds.
SIDES: dict[str, Callable[[Any, Question], Any]] = {
    "dense": lambda store, asked: store.search(asked.vector, TOP_K),
    "words": lambda store, asked: store.search_text(asked.text, TOP_K),
    "hybrid": lambda store, asked: store.hybrid_search(
        asked.vector, asked.text, TOP_K, fusion=Rrf()
    ),
    "hybrid_weighted": lambda store, asked: store.hybrid_search(
        asked.vector, asked.text, TOP_K, fusion=Weighted(dense=0.5, text=0.5)
    ),
}


def ranks_of(side: str, store: Any, questions: list[Question]) -> Ranks:
    """At which place, from 1 on, each question's answer is; None: not among the first TOP_K."""
    ranks: Ranks = []
    for question in questions:
        ids = [hit.id for hit in SIDES[side](store, question)]
        ranks.append(ids.index(question.answer) + 1 if question.answer in ids else None)
    return ranks


def figures(ranks: Ranks) -> Row:
    """nDCG@10 and recall@5 with their intervals."""
    return {
        name: round(float(np.mean(values)), 4)
        for name, values in (("ndcg_10", gains(ranks)), ("recall_5", recalls(ranks)))
    } | {
        f"{name}_interval": _interval(values)
        for name, values in (("ndcg_10", gains(ranks)), ("recall_5", recalls(ranks)))
    }


def gains(ranks: Ranks) -> list[float]:
    """nDCG@10 of each question, which has one relevant passage."""
    return [0.0 if rank is None else 1 / math.log2(1 + rank) for rank in ranks]


def recalls(ranks: Ranks) -> list[float]:
    """Whether each answer is among the first five."""
    return [float(rank is not None and rank <= 5) for rank in ranks]


def difference(ours: Ranks, theirs: Ranks) -> Row:
    """The mean difference of nDCG@10, question by question, and its interval."""
    differences = [a - b for a, b in zip(gains(ours), gains(theirs), strict=True)]
    return {"ndcg_10": round(float(np.mean(differences)), 4), "interval": _interval(differences)}


def _interval(values: list[float]) -> list[float]:
    """The interval of 95 % of the mean."""
    if len({*values}) == 1:
        return [values[0], values[0]]
    found = bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0))
    low, high = found.confidence_interval
    return [round(float(low), 4), round(float(high), 4)]


def headline(sides: dict[str, list[Row]]) -> list[Headline]:
    """What hybrid adds to the nDCG@10 of dense: the lower end of the interval."""
    return [
        Headline.of(
            "nDCG@10, hybrid over dense, lower end of the interval of 95 %",
            [row["interval"][0] for row in sides["hybrid - dense"]],
            unit="ratio",
            floor=0.0,
            moonshot=0.1,
        ),
    ]

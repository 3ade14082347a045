"""``sage db search``: by a text that the gateway embeds, by words, by both, or near a row."""

from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import typer

from sage_flink.cli.gateway_client import call_gateway
from sage_flink.cli.milvus_collections import (
    AsOf,
    Connection,
    Name,
    Where,
    filter_of,
    open_collection,
)
from sage_flink.cli.output import AsJson, console, print_json
from sage_flink.common import ConfigError
from sage_flink.db import RowFilter, SearchHit
from sage_flink.db.hit_pages import DOCUMENT
from sage_flink.db.vectors import numbers

TEXT_CHARS = 300


@dataclass(frozen=True, slots=True)
class _Options:
    """Which rows are found, and which page of them."""

    where: str
    min_score: float
    top: int
    offset: int
    group_by: str
    as_of: str

    @property
    def condition(self) -> RowFilter | None:
        return filter_of(self.where)

    @property
    def least(self) -> float | None:
        return self.min_score if self.min_score > -1 else None


def search(
    name: Name,
    text: Annotated[str, typer.Argument(help="What to look for; the gateway embeds it.")] = "",
    near: Annotated[str, typer.Option(help="In place of a text: the id of a row.")] = "",
    words: Annotated[
        str, typer.Option("--text", help="In place of a text: its words alone, by BM25.")
    ] = "",
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="By the words of the text too (BM25), fused by ranks.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, max=50, help="How many rows.")] = 5,
    offset: Annotated[int, typer.Option(min=0, max=1000, help="Leave out so many before.")] = 0,
    group_by: Annotated[str, typer.Option(help="document: the best row of each document.")] = "",
    where: Where = "",
    as_of: AsOf = "",
    min_score: Annotated[
        float, typer.Option(min=-1, max=1, help="Leave out rows with a lower cosine similarity.")
    ] = -1,
    connection: Connection = "",
    as_json: AsJson = False,
) -> None:
    """Search for a text, for words, or for the rows near another one."""
    options = _Options(where, min_score, top, offset, group_by, as_of)
    _check(text, near, words, hybrid, connection, options)
    if near:
        hits = _near(name, connection, near, options)
    elif words:
        with closing(open_collection(name, connection, as_of)) as store:
            found = store.search_text(
                words, top, where=options.condition, offset=offset, group_by=group_by
            )
        hits = _plain(found)
    else:
        hits = _by_gateway(name, text, hybrid, options)
    _show(hits, as_json)


def _check(
    text: str, near: str, words: str, hybrid: bool, connection: str, options: _Options
) -> None:
    """Check what the options of the command say together.

    Raises:
        ConfigError, Rejected: they contradict each other, or the filter cannot be read.
    """
    if sum(map(bool, (text, near, words))) != 1:
        raise ConfigError("sage db search: give a text, or --text and words, or --near and an id")
    if options.least is not None and (words or hybrid):
        raise ConfigError("sage db search: --min-score is a cosine; BM25 and ranks have others")
    if hybrid and not text:
        raise ConfigError("sage db search: --hybrid is for a text, which the gateway embeds")
    if options.group_by not in ("", DOCUMENT):
        raise ConfigError(
            f"sage db search: --group-by must be {DOCUMENT}, got {options.group_by!r:.100}"
        )
    if text and (connection or options.as_of):
        raise ConfigError(
            "sage db search: a text is searched for by the gateway, which has a connection of "
            "its own and the newest rows; leave out --connection and --as-of, or use --text or "
            "--near"
        )
    filter_of(options.where)


def _by_gateway(name: str, text: str, hybrid: bool, options: _Options) -> list[dict[str, Any]]:
    ranking = {"ranker": "hybrid"} if hybrid else {"score_threshold": options.least}
    body: dict[str, Any] = {
        "query": text,
        "max_num_results": options.top,
        "filters": options.where or None,
        "ranking_options": ranking,
        "offset": options.offset,
        "group_by": options.group_by or None,
    }
    page = call_gateway("POST", f"/v1/vector_stores/{name}/search", json=body)
    return [_hit_of(item) for item in page["data"]]


def _near(name: str, connection: str, near: str, options: _Options) -> list[dict[str, Any]]:
    with closing(open_collection(name, connection, options.as_of)) as store:
        rows = store.get([near])
        if not rows:
            raise ConfigError(f"no row {near!r} in {name}")
        end = options.offset + options.top
        hits = store.search(
            numbers(rows[0].vector),
            end + 1,  # one of them is the row itself
            where=options.condition,
            min_score=options.least,
            group_by=options.group_by,
        )
    return _plain([hit for hit in hits if hit.id != near])[options.offset : end]


def _plain(hits: list[SearchHit]) -> list[dict[str, Any]]:
    plain: list[dict[str, Any]] = msgspec.to_builtins(hits)
    return plain


def _hit_of(item: dict[str, Any]) -> dict[str, Any]:
    """A hit of the gateway's page, as a store has it."""
    fields = dict(item["attributes"])
    text = "".join(part["text"] for part in item["content"])
    row = fields.pop("chunk_id", item["file_id"])  # rows of the API's own stores have no other id
    return {"id": row, "score": item["score"], "fields": {"text": text} | fields}


def _show(hits: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(hits)
        return
    for hit in hits:
        console.print(f"{hit['score']:.3f}  {hit['id']}", style="bold")
        console.print(str(hit["fields"].get("text", hit["fields"]))[:TEXT_CHARS], soft_wrap=True)
    if not hits:
        console.print("no row matches")

"""``sage pool``: its keys and what they used; models are pool_control's, replay pool_replay's."""

import json
from typing import Annotated

import typer
from rich.table import Column, Table

from sage_flink.cli import pool_control
from sage_flink.cli.asked import asked
from sage_flink.cli.pool_replay import replay
from sage_flink.cli.shown import AsJson, console

COUNTS = ("requests", "prompt_tokens", "completion_tokens")

app = typer.Typer(
    help="The model pool: models, replicas, keys, usage, replay.", no_args_is_help=True
)
keys = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)
app.add_typer(keys, name="keys")
for command in (*pool_control.COMMANDS, replay):
    app.command()(command)

Scopes = Annotated[
    list[str] | None, typer.Option(help="infer (the default), read or admin; again for more.")
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N")]
Day = Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="UTC.")]


@keys.command()
def create(
    tenant: Annotated[str, typer.Argument(help="Whose key it is.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    scope: Scopes = None,
    requests_per_minute: Limit = None,
    tokens_per_minute: Limit = None,
    tokens_per_day: Limit = None,
    tokens_per_month: Limit = None,
    cache_ttl_s: Annotated[int, typer.Option(min=0, help="Cache sure answers so long.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    limits = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
        "tokens_per_month": tokens_per_month,
    }
    wanted = {
        "tenant": tenant,
        "name": name,
        "scopes": scope or ["infer"],
        "limits": limits,
        "cache_ttl_s": cache_ttl_s,
    }
    made = asked("POST", "/pool/keys", json=wanted)
    if as_json:
        print(json.dumps(made))
        return
    print(made["key"])
    console.print(f"{made['id']} of {made['tenant']}; the key is shown this once", soft_wrap=True)


@keys.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys, without themselves."""
    found = asked("GET", "/pool/keys")["data"]
    if as_json:
        print(json.dumps(found))
        return
    table = Table(
        Column("id", no_wrap=True), *_folded("tenant", "name", "scopes", "limits"), box=None
    )
    for key in found:
        limits = ", ".join(f"{name} {count:,}" for name, count in key["limits"].items())
        table.add_row(key["id"], key["tenant"], key["name"], " ".join(key["scopes"]), limits)
    console.print(table if found else "no keys; make one with `sage pool keys create TENANT`")


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
) -> None:
    """Revoke a key; what it used stays in the usage."""
    asked("DELETE", f"/pool/keys/{key_id}")
    console.print(f"{key_id} revoked")


@app.command()
def usage(since: Day = "", until: Day = "", as_json: AsJson = False) -> None:
    """Show requests and tokens by day, tenant, key, model and job; this month's by default."""
    named = {"since": since, "until": until}
    found = asked("GET", "/v1/usage", params={k: v for k, v in named.items() if v})["data"]
    if as_json:
        print(json.dumps(found))
        return
    whole = (Column("day", no_wrap=True), Column("key", no_wrap=True))
    table = Table(*whole, *_folded("tenant", "model", "job"), box=None)
    for name in ("requests", "prompt", "completion"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in found:
        words = (line[name] for name in ("day", "key", "tenant", "model", "job"))
        counts = (f"{line[name]:,}" for name in COUNTS)
        table.add_row(*words, *counts)
    console.print(table if found else "nothing was used")


def _folded(*names: str) -> list[Column]:
    """Columns that are broken into lines where the console is narrow; nothing is cut."""
    return [Column(name, overflow="fold") for name in names]

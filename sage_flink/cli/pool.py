"""``sage pool``: API keys and their usage; see pool_control for models, pool_replay for replay."""

from typing import Annotated

import typer
from rich.table import Column

from sage_flink.cli import pool_control
from sage_flink.cli.gateway_client import call_gateway
from sage_flink.cli.output import AsJson, console, print_json, print_table, table
from sage_flink.cli.pool_replay import replay

COUNTS = ("requests", "prompt_tokens", "completion_tokens")

app = typer.Typer(
    help="The model pool: models, replicas, keys, usage, replay.", no_args_is_help=True
)
keys = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)
app.add_typer(keys, name="keys")
for command in (*pool_control.COMMANDS, replay):
    app.command()(command)

Scopes = Annotated[
    list[str] | None, typer.Option(help="infer (the default), read or admin; repeatable.")
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N")]
Day = Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="UTC.")]


@keys.command()
def create(
    tenant: Annotated[str, typer.Argument(help="The tenant of the key.")],
    name: Annotated[str, typer.Option(help="A note on the key's purpose.")] = "",
    scope: Scopes = None,
    requests_per_minute: Limit = None,
    tokens_per_minute: Limit = None,
    tokens_per_day: Limit = None,
    tokens_per_month: Limit = None,
    cache_ttl_s: Annotated[
        int, typer.Option(min=0, help="Cache deterministic responses for these seconds.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it; it is never shown again."""
    limits = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
        "tokens_per_month": tokens_per_month,
    }
    body = {
        "tenant": tenant,
        "name": name,
        "scopes": scope or ["infer"],
        "limits": limits,
        "cache_ttl_s": cache_ttl_s,
    }
    key = call_gateway("POST", "/pool/keys", json=body)
    if as_json:
        print_json(key)
        return
    print(key["key"])
    console.print(f"{key['id']} of {key['tenant']}; the key is shown only once", soft_wrap=True)


@keys.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys' ids, tenants and limits, without the secrets."""
    keys = call_gateway("GET", "/pool/keys")["data"]
    if as_json:
        print_json(keys)
        return
    rows = table(Column("id", no_wrap=True), "tenant", "name", "scopes", "limits")
    for key in keys:
        limits = ", ".join(f"{name} {count:,}" for name, count in key["limits"].items())
        rows.add_row(key["id"], key["tenant"], key["name"], " ".join(key["scopes"]), limits)
    print_table(rows, empty="no keys; make one with `sage pool keys create TENANT`")


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
) -> None:
    """Revoke a key; its past requests stay in the usage."""
    call_gateway("DELETE", f"/pool/keys/{key_id}")
    console.print(f"{key_id} revoked")


@app.command("clear-cache")
def clear_cache() -> None:
    """Remove all cached answers and vectors, of all tenants; those of deleted documents too."""
    call_gateway("DELETE", "/pool/cache")
    console.print("all cached answers and vectors removed")


@app.command()
def usage(since: Day = "", until: Day = "", as_json: AsJson = False) -> None:
    """Show requests and tokens by day, tenant, key, model and job; this month's by default."""
    period = {name: day for name, day in (("since", since), ("until", until)) if day}
    lines = call_gateway("GET", "/v1/usage", params=period)["data"]
    if as_json:
        print_json(lines)
        return
    columns = (Column("day", no_wrap=True), Column("key", no_wrap=True), "tenant", "model", "job")
    rows = table(*columns, numbers=("requests", "prompt", "completion"))
    for line in lines:
        labels = (line[name] for name in ("day", "key", "tenant", "model", "job"))
        rows.add_row(*labels, *(f"{line[name]:,}" for name in COUNTS))
    print_table(rows, empty="no usage")

"""``sage pool``: the models and replicas of a gateway that runs, and what is wanted of them."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Column, Table

from sage_flink.cli.asked import asked
from sage_flink.cli.shown import AsJson, console
from sage_flink.common import ConfigError

Model = Annotated[str, typer.Argument(metavar="MODEL", help="As `models` shows it.")]
Replica = Annotated[str, typer.Argument(metavar="REPLICA", help="As `replicas` shows it.")]


def status(as_json: AsJson = False) -> None:
    """Show the models and what is wrong; exit with 1 where one that is wanted is not ready."""
    models, replicas = _listed("models"), _listed("replicas")
    ill = [r for r in replicas if r["state"] != "ready" or r["doubted"]]
    if as_json:
        print(json.dumps({"models": models, "replicas": replicas}))
    else:
        console.print(_of_models(models) if models else "no models")
        for one in ill:
            why = f": {one['reason']}" if one["reason"] else ""
            doubt = " (doubted)" if one["doubted"] and one["state"] == "ready" else ""
            console.print(f"{one['id']} is {one['state']}{doubt}{why}", soft_wrap=True)
    if any(m["wanted"] and not m["ready"] for m in models):
        raise typer.Exit(1)


def models(as_json: AsJson = False) -> None:
    """List the models: replicas ready of those wanted, requests at them, requests that wait."""
    found = _listed("models")
    if as_json:
        print(json.dumps(found))
        return
    console.print(_of_models(found) if found else "no models")


def replicas(as_json: AsJson = False) -> None:
    """List the replicas: state, process, requests in flight of those they take, restarts."""
    found = _listed("replicas")
    if as_json:
        print(json.dumps(found))
        return
    table = Table(Column("replica", overflow="fold"), "state", "circuit", box=None)
    for name in ("pid", "port", "busy", "restarts", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        state = "leaving" if one["leaving"] and one["state"] == "ready" else one["state"]
        busy = f"{one['in_flight']}/{one['limit']}"
        numbers = (str(one["pid"] or ""), str(one["port"] or ""), busy, str(one["restarts"]))
        table.add_row(one["id"], state, one["circuit"], *numbers, _age(one["age_s"]))
    console.print(table if found else "no replicas")
    for one in found:
        if one["reason"]:
            console.print(f"{one['id']}: {one['reason']}", soft_wrap=True)


def scale(
    model: Model,
    count: Annotated[int, typer.Argument(metavar="REPLICAS", min=0, max=64)],
    as_json: AsJson = False,
) -> None:
    """Want so many replicas of a model; those that are too many finish what they have in flight."""
    found = asked("POST", f"/pool/models/{quote(model)}/scale", json={"replicas": count})
    words = f"{found['id']}: {found['wanted']} wanted, {found['ready']} ready"
    print(json.dumps(found)) if as_json else console.print(words, soft_wrap=True)


def drain(replica: Replica, as_json: AsJson = False) -> None:
    """Replace a replica: another is started, and once it is ready this one ends."""
    found = asked("POST", f"/pool/replicas/{quote(replica)}/drain")
    words = f"{replica} goes when another is ready; see `sage pool replicas`"
    print(json.dumps(found)) if as_json else console.print(words, soft_wrap=True)


def presets(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Print its pool.yaml.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the pools that are shipped, or print one; `sage-gateway --preset NAME` serves it."""
    found = {one["id"]: one["pool"] for one in _listed("presets")}
    if name and name not in found:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(found)}")
    shown = {name: found[name]} if name else found
    if as_json:
        print(json.dumps(shown))
    elif name:
        print(found[name], end="")
    else:
        for preset, text in found.items():
            console.print(f"{preset}: {text.splitlines()[0].lstrip('# ')}", soft_wrap=True)


COMMANDS = (status, models, replicas, scale, drain, presets)


def _listed(what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asked("GET", f"/pool/{what}")["data"]
    return found


def _of_models(found: list[dict[str, Any]]) -> Table:
    folded = (Column(name, overflow="fold") for name in ("model", "engine", "kind"))
    table = Table(*folded, box=None)
    for name in ("ready", "wanted", "in flight", "waiting"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        counts = (str(one[name]) for name in ("ready", "wanted", "in_flight", "waiting"))
        table.add_row(one["id"], one["engine"], one["kind"], *counts)
    return table


def _age(seconds: float | None) -> str:
    """In the largest unit that gives at least 1."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"

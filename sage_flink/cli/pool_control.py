"""``sage pool``: models, replicas and presets of a running gateway."""

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from sage_flink.cli.gateway_client import call_gateway
from sage_flink.cli.output import AsJson, console, print_json, print_table, table
from sage_flink.common import ConfigError

Model = Annotated[str, typer.Argument(metavar="MODEL", help="As `models` shows it.")]
Replica = Annotated[str, typer.Argument(metavar="REPLICA", help="As `replicas` shows it.")]


def status(as_json: AsJson = False) -> None:
    """Show the models and unhealthy replicas; exit with 1 if a wanted model is not ready."""
    models, replicas = _list("models"), _list("replicas")
    if as_json:
        print_json({"models": models, "replicas": replicas})
    else:
        print_table(_model_table(models), empty="no models")
        for replica in replicas:
            if replica["state"] != "ready" or replica["doubted"]:
                console.print(_health(replica), soft_wrap=True)
    if any(m["wanted"] and not m["ready"] for m in models):
        raise typer.Exit(1)


def models(as_json: AsJson = False) -> None:
    """List the models: ready and wanted replicas, requests in flight, queued requests."""
    models = _list("models")
    if as_json:
        print_json(models)
        return
    print_table(_model_table(models), empty="no models")


def replicas(as_json: AsJson = False) -> None:
    """List the replicas: state, process, requests in flight and their limit, restarts."""
    replicas = _list("replicas")
    if as_json:
        print_json(replicas)
        return
    numbers = ("pid", "port", "busy", "restarts", "age")
    rows = table("replica", "state", "circuit", numbers=numbers)
    for one in replicas:
        state = "leaving" if one["leaving"] and one["state"] == "ready" else one["state"]
        busy = f"{one['in_flight']}/{one['limit']}"
        cells = (str(one["pid"] or ""), str(one["port"] or ""), busy, str(one["restarts"]))
        rows.add_row(one["id"], state, one["circuit"], *cells, _age(one["age_s"]))
    print_table(rows, empty="no replicas")
    for one in replicas:
        if one["reason"]:
            console.print(f"{one['id']}: {one['reason']}", soft_wrap=True)


def scale(
    model: Model,
    count: Annotated[int, typer.Argument(metavar="REPLICAS", min=0, max=64)],
    as_json: AsJson = False,
) -> None:
    """Set the number of replicas of a model; surplus replicas finish their requests first."""
    scaled = call_gateway("POST", f"/pool/models/{quote(model)}/scale", json={"replicas": count})
    text = f"{scaled['id']}: {scaled['wanted']} wanted, {scaled['ready']} ready"
    print_json(scaled) if as_json else console.print(text, soft_wrap=True)


def drain(replica: Replica, as_json: AsJson = False) -> None:
    """Replace a replica: start another one and, once that is ready, stop this one."""
    drained = call_gateway("POST", f"/pool/replicas/{quote(replica)}/drain")
    text = f"{replica} stops when another replica is ready; see `sage pool replicas`"
    print_json(drained) if as_json else console.print(text, soft_wrap=True)


def presets(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Print its pool.yaml.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the presets, or print one; `sage-gateway --preset NAME` serves it."""
    known = {one["id"]: one["pool"] for one in _list("presets")}
    if name and name not in known:
        raise ConfigError(f"no preset {name!r}; the presets are {', '.join(known)}")
    if as_json:
        print_json({name: known[name]} if name else known)
    elif name:
        print(known[name], end="")
    else:
        for preset, text in known.items():
            console.print(f"{preset}: {text.splitlines()[0].lstrip('# ')}", soft_wrap=True)


COMMANDS = (status, models, replicas, scale, drain, presets)


def _list(collection: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = call_gateway("GET", f"/pool/{collection}")["data"]
    return entries


def _model_table(models: list[dict[str, Any]]) -> Table:
    numbers = ("ready", "wanted", "in flight", "waiting")
    rows = table("model", "engine", "kind", numbers=numbers)
    for model in models:
        counts = (str(model[name.replace(" ", "_")]) for name in numbers)
        rows.add_row(model["id"], model["engine"], model["kind"], *counts)
    return rows


def _health(replica: dict[str, Any]) -> str:
    """One line about a replica that is not ready, or ready but suspected to be unhealthy."""
    suspect = " (doubted)" if replica["doubted"] and replica["state"] == "ready" else ""
    reason = f": {replica['reason']}" if replica["reason"] else ""
    return f"{replica['id']} is {replica['state']}{suspect}{reason}"


def _age(seconds: float | None) -> str:
    """``seconds`` in the largest unit that gives at least 1."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"

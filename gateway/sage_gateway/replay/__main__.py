"""The replay command: ``python -m sage_gateway.replay TRACE --policy slo`` prints JSON."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sage_flink.common import ConfigError
from sage_gateway.config.pool_spec import ScalingSpec
from sage_gateway.replay.figures import ReplayFigures, figures
from sage_gateway.replay.simulate import ReplaySetup, run_trace
from sage_gateway.replay.trace import ModelHeader, Trace, read
from sage_gateway.scheduling import POLICIES, QueueLimits


class Overrides(NamedTuple):
    """Changes to the recorded setup. ``start_s``: how long a new replica takes to start."""

    replicas: int | None = None
    concurrency: int | None = None
    scaling: bool = False
    start_s: float = 5.0


AS_RECORDED = Overrides()


def main() -> None:
    """Replay and print; an error is printed on stderr, with exit code 2."""
    args = _arguments()
    overrides = Overrides(args.replicas, args.concurrency, args.scaling, args.start_s)
    try:
        found = list(replay(read(args.trace), args.policy, overrides))
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(json.dumps([one.to_json() for one in found]))


def replay(
    trace: Trace, policy: str, overrides: Overrides = AS_RECORDED
) -> Iterator[ReplayFigures]:
    """The figures of each model under its recorded policy, then under ``policy`` if it differs.

    Raises:
        ConfigError: there is no such policy, or no scaling was recorded.
    """
    if policy not in POLICIES:
        raise ConfigError(f"no policy {policy!r}; there are {', '.join(sorted(POLICIES))}")
    for name, header in trace.header.models.items():
        if rows := trace.of(name):
            for one in dict.fromkeys((header.policy, policy)):
                yield figures(name, one, run_trace(rows, _setup(name, header, one, overrides)))


def _setup(name: str, header: ModelHeader, policy: str, overrides: Overrides) -> ReplaySetup:
    if overrides.scaling and header.scaling is None:
        raise ConfigError(
            f"model {name} had no `scaling` when it was recorded; leave --scaling out"
        )
    return ReplaySetup(
        policy=policy,
        replicas=overrides.replicas or max(1, header.replicas),
        concurrency=overrides.concurrency or header.concurrency,
        bounds=QueueLimits(header.queue_max, header.queue_timeout_s),
        scaling=ScalingSpec.model_validate(header.scaling) if overrides.scaling else None,
        start_s=overrides.start_s,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sage_gateway.replay", description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--concurrency", type=int)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--start-s", type=float, default=5.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""``python -m sage_gateway.replay TRACE --policy slo``: the figures as JSON; see ``sage pool``."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sage_flink.common import ConfigError
from sage_gateway.config.pool_spec import ScalingSpec
from sage_gateway.replay.figures import Figures, figures
from sage_gateway.replay.simulate import Setup, simulated
from sage_gateway.replay.trace import ModelHead, Trace, read
from sage_gateway.scheduling import POLICIES, Bounds


class Given(NamedTuple):
    """What is other than it was recorded. ``start_s``: how long a new replica takes."""

    replicas: int | None = None
    concurrency: int | None = None
    scaling: bool = False
    start_s: float = 5.0


AS_RECORDED = Given()


def main() -> None:
    """Replay and print; what is wrong goes to stderr, with exit code 2."""
    args = _arguments()
    given = Given(args.replicas, args.concurrency, args.scaling, args.start_s)
    try:
        found = list(replayed(read(args.trace), args.policy, given))
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(json.dumps([one.told() for one in found]))


def replayed(trace: Trace, policy: str, given: Given = AS_RECORDED) -> Iterator[Figures]:
    """Each model under the policy that it had, then under ``policy`` where that is another.

    Raises:
        ConfigError: there is no such policy, or no scaling was recorded.
    """
    if policy not in POLICIES:
        raise ConfigError(f"no policy {policy!r}; there are {', '.join(sorted(POLICIES))}")
    for name, head in trace.head.models.items():
        if rows := trace.of(name):
            for one in dict.fromkeys((head.policy, policy)):
                yield figures(name, one, simulated(rows, _setup(name, head, one, given)))


def _setup(name: str, head: ModelHead, policy: str, given: Given) -> Setup:
    if given.scaling and head.scaling is None:
        raise ConfigError(
            f"model {name} had no `scaling` when it was recorded; leave --scaling out"
        )
    return Setup(
        policy=policy,
        replicas=given.replicas or max(1, head.replicas),
        concurrency=given.concurrency or head.concurrency,
        bounds=Bounds(head.queue_max, head.queue_timeout_s),
        scaling=ScalingSpec.model_validate(head.scaling) if given.scaling else None,
        start_s=given.start_s,
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

"""``python -m sage_gateway.replay TRACE --policy slo``: the figures as JSON; see ``sage pool``."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from sage_flink.common import ConfigError
from sage_gateway.replay.figures import Figures, figures
from sage_gateway.replay.simulate import Setup, simulated
from sage_gateway.replay.trace import ModelHead, Trace, read
from sage_gateway.scheduling import POLICIES, Bounds


def main() -> None:
    """Replay and print; what is wrong goes to stderr, with exit code 2."""
    args = _arguments()
    try:
        found = list(replayed(read(args.trace), args.policy, args.replicas, args.concurrency))
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(json.dumps([one.told() for one in found]))


def replayed(
    trace: Trace, policy: str, replicas: int | None = None, concurrency: int | None = None
) -> Iterator[Figures]:
    """Each model under the policy that it had, then under ``policy`` where that is another.

    Raises:
        ConfigError: there is no such policy.
    """
    if policy not in POLICIES:
        raise ConfigError(f"no policy {policy!r}; there are {', '.join(sorted(POLICIES))}")
    for name, head in trace.head.models.items():
        if rows := trace.of(name):
            for one in dict.fromkeys((head.policy, policy)):
                setup = _setup(head, one, replicas, concurrency)
                yield figures(name, one, simulated(rows, setup))


def _setup(head: ModelHead, policy: str, replicas: int | None, concurrency: int | None) -> Setup:
    return Setup(
        policy=policy,
        replicas=replicas or max(1, head.replicas),
        concurrency=concurrency or head.concurrency,
        bounds=Bounds(head.queue_max, head.queue_timeout_s),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sage_gateway.replay", description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--concurrency", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""The benchmarks' mock engine behind the pool: for drills, where answers must be countable."""

from sage_flink.common import sage_home
from sage_gateway.engines.engine import Engine, Launch


def argv(launch: Launch) -> list[str]:
    """The mock engine's command line."""
    program = sage_home() / "lib" / "mock-engine"
    line = [str(program), "--port", str(launch.port), "--model", launch.model]
    return [*line, *launch.spec.arguments]


# Without a probe: what it has answered is counted.
ENGINE = Engine(kinds=frozenset({"chat", "embedding"}), argv=argv, weights=False, probe=False)

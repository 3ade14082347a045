"""The benchmarks' mock engine, for drills in which responses are counted."""

from sage_flink.common import sage_home
from sage_gateway.engines.engine import Engine, Launch


def argv(launch: Launch) -> list[str]:
    """The mock engine's command line."""
    program = sage_home() / "lib" / "mock-engine"
    line = [str(program), "--port", str(launch.port), "--model", launch.model]
    return [*line, *launch.spec.arguments]


# Without a probe, which would be counted as a response.
ENGINE = Engine(kinds=frozenset({"chat", "embedding"}), argv=argv, weights=False, probe=False)

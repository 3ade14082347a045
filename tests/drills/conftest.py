"""Drills: a separate stack, a stream of ids, a fault, and record accounting.

``--drill-ids`` and ``--drill-repeats`` turn the short form into the full one; ``--drill-results``
writes the rows to the result file of B10.
"""

import gc
import random
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from benchmark_sage import sides
from benchmark_sage.mock_engine import mock_engine
from benchmark_sage.recovery import events, results
from benchmark_sage.recovery.cluster import running_cluster
from benchmark_sage.recovery.drill import drill
from benchmark_sage.recovery.ingest import ingest_drill
from benchmark_sage.recovery.peers import peer_drill

COLUMNS = ("ids", "lost", "duplicated", "both", "wrong", "calls_per_id", "first_output_s")
POOL_COLUMNS = (
    *("ids", "lost", "duplicated", "wrong", "failures", "ejected_s"),
    *("p99_before_ms", "p99_during_ms", "p99_after_ms"),
)

OPTIONS = {
    "--drill-ids": (int, 600, "ids that a drill feeds"),
    "--drill-repeats": (int, 1, "times that each drill runs"),
    "--drill-rate": (float, 120.0, "ids fed a second"),
    "--drill-seed": (int, None, "seed of the faults' moments"),
    "--drill-results": (Path, None, "folder for the result file of B10"),
}


def pytest_addoption(parser):
    group = parser.getgroup("drills")
    for name, (kind, default, text) in OPTIONS.items():
        group.addoption(name, type=kind, default=default, help=text)


def option(config, name):
    """The option's value, or its default if pytest loaded this file after parsing its options."""
    return config.getoption(name, OPTIONS[name][1])


def pytest_collection_modifyitems(items):
    for item in items:
        if "drills" in Path(item.path).parts:
            item.add_marker(pytest.mark.drill)
            item.add_marker(pytest.mark.timeout(1800))
            # PyFlink leaves the pipes and sockets of its JVM to the garbage collector.
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
            ignored = "ignore::pytest.PytestUnraisableExceptionWarning"
            item.add_marker(pytest.mark.filterwarnings(ignored))


def pytest_generate_tests(metafunc):
    if "repeat" in metafunc.fixturenames:
        metafunc.parametrize("repeat", range(option(metafunc.config, "--drill-repeats")))


def pytest_configure(config):
    config.drill_rows = []


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Collect the sockets that the last drill's clients of a dead broker left open."""
    if session.config.drill_rows:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def pytest_terminal_summary(terminalreporter, config):
    if not config.drill_rows:
        return
    pool = [named for named in config.drill_rows if "failures" in named[1]]
    rest = [named for named in config.drill_rows if "failures" not in named[1]]
    terminalreporter.write_line("")
    for title, columns, rows in (
        ("drills", COLUMNS, rest),
        ("drills of the pool", POOL_COLUMNS, pool),
    ):
        if rows:
            Console(width=120).print(table(title, columns, rows))
    if path := option(config, "--drill-results"):
        repeats, seed = option(config, "--drill-repeats"), option(config, "--drill-seed")
        results.save_rows(path, config.drill_rows, repeats=repeats, seed=seed or 0)


def table(title, columns, rows):
    """The main counts, one row per drill."""
    found = Table("drill", *columns, box=None, title=title, title_justify="left")
    for name, row in rows:
        found.add_row(name, *(str(row.get(column, "")) for column in columns))
    return found


@pytest.fixture(scope="session")
def cluster():
    """The drills' own running stack; ``SAGE_HOME`` points to it."""
    with running_cluster() as cluster:
        yield cluster
    gc.collect()  # reports sockets that clients of a dead broker left open now, not at exit


@pytest.fixture(scope="session")
def full(request):
    """Whether this is the full form, with all ids and faults of full length."""
    return option(request.config, "--drill-ids") >= 10_000


@pytest.fixture(scope="session")
def within(full):
    """``within(seconds)``: a time limit; doubled in the short form, which shares the machine."""
    return lambda seconds: seconds if full else 2 * seconds


@pytest.fixture
def seed(request, repeat):
    """The seed of this repeat; printed, so that a failure can be reproduced."""
    first = option(request.config, "--drill-seed")
    chosen = random.randrange(1 << 16) if first is None else first + repeat
    print(f"--drill-seed {chosen}")
    return chosen


@pytest.fixture
def run(request, cluster, seed):
    """``run(fault)``: runs one drill; its row is saved under the test's name."""

    def run(fault, *, ids=None, rate=None, name="", **options):
        count = ids or option(request.config, "--drill-ids")
        rate = rate or option(request.config, "--drill-rate")
        cluster.up()
        found = drill(cluster, list(events(count)), fault, rate_per_s=rate, seed=seed, **options)
        label = name or request.node.originalname.removeprefix("test_")
        request.config.drill_rows.append((label, found.row()))
        print(found.row())
        return found

    return run


@pytest.fixture
def ingest(request, cluster, seed, keep):
    """``ingest(fault)``: runs one drill of ``rag_ingest``; its row is saved under ``name``."""

    def ingest(fault, *, name, **options):
        cluster.up()
        ids, rate = (option(request.config, each) for each in ("--drill-ids", "--drill-rate"))
        found = ingest_drill(cluster, fault, count=ids, rate_per_s=rate, seed=seed, **options)
        keep(name, found.row())
        return found

    return ingest


@pytest.fixture
def peer(request, cluster, seed):
    """``peer(name, kill)``: runs the drill of one side of B2; its row is saved as ``peer_NAME``."""

    def peer(name, kill):
        cluster.up()
        with mock_engine("lognormal:30ms:0.5") as engine:
            found, calls = peer_drill(
                engine,
                getattr(sides, name),
                kill,
                ids=option(request.config, "--drill-ids"),
                rate_per_s=option(request.config, "--drill-rate"),
                seed=seed,
            )
        row = asdict(found) | {"calls_per_id": round(calls, 4)}
        request.config.drill_rows.append((f"peer_{name}", row))
        print(row)
        return found

    return peer


@pytest.fixture
def load(request, repeat, full):
    """The minimum number of ids of a pool drill, and their rate.

    Half of those of a stack drill: clients, gateways and engines all run on this machine.
    """
    ids, rate = (option(request.config, name) for name in ("--drill-ids", "--drill-rate"))
    return {"ids": ids if full else ids // 2, "rate_per_s": rate / 2}


@pytest.fixture
def keep(request):
    """``keep(name, row)``: saves the row of a drill for the table and the result file."""

    def keep(name, row):
        request.config.drill_rows.append((name, row))
        print(name, row)

    return keep

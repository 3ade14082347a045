"""Makes the folder, adds Debian's manuals, reads it on both targets and prints what they made."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmark_sage.documents import debian
from benchmark_sage.documents.folder import make_articles
from benchmark_sage.documents.oddities import make_bombs, make_oddities
from benchmark_sage.documents.targets import Reading, in_process, on_minicluster
from sage_flink.common import OperatorNeeded
from sage_jobs.entry import report_errors

console = Console(highlight=False, soft_wrap=True)


def main(
    with_debian: Annotated[
        bool, typer.Option("--debian/--no-debian", help="Add real documents, by apt.")
    ] = True,
    copies: Annotated[int, typer.Option(min=1, help="Of the generated articles.")] = 3,
) -> None:
    """Read the folder on both targets and compare.

    Raises:
        OperatorNeeded: a file is neither documents nor a dead letter, or the targets differ.
    """
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "folder")
        folder.mkdir()
        expected = make_oddities(folder)
        expected.add(make_bombs(folder))
        expected.add(make_articles(folder, copies=copies))
        if with_debian:
            debian.fetch(folder / "debian")
        here = in_process(folder)
        flink = on_minicluster(
            folder, Path(work), count=len(here.documents) + len(here.failed), wait_s=900
        )
        _report(folder, here)
        missing = {*expected.documents} - {*here.documents} | {*expected.failed} - {*here.failed}
        if missing:
            raise OperatorNeeded(f"neither documents nor dead letters: {sorted(missing)[:10]}")
        if here != flink:
            raise OperatorNeeded(f"the targets differ: {_difference(here, flink)}")
    console.print("the two targets agree: ids, titles, texts, times, reasons")


def _report(folder: Path, reading: Reading) -> None:
    files = {path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    origins = {record.origin for record in reading.documents.values()}
    console.print(f"{len(files)} files; {len(reading.documents)} documents of {len(origins)} files")
    console.print(f"{len(reading.failed)} dead letters:")
    for reason, count in Counter(
        r.split(": ", 1)[-1][:90] for r in reading.failed.values()
    ).most_common():
        console.print(f"  {count:4} {reason}", markup=False)


def _difference(here: Reading, flink: Reading) -> str:
    ids = {*here.documents, *flink.documents}
    documents = [id_ for id_ in ids if here.documents.get(id_) != flink.documents.get(id_)]
    failed = here.failed.items() ^ flink.failed.items()
    return f"{sorted(documents)[:5]}, {sorted(failed)[:5]}"


if __name__ == "__main__":
    with report_errors("documents"):
        typer.run(main)

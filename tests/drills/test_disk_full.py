"""A full disk under the checkpoint folder: a clear alarm, and no record lost afterwards."""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest

FULL_S = 12.0
SIZE_MIB = 32


@pytest.fixture
def small_disk(cluster):
    """The checkpoint folder on a file system of 32 MiB; mounting it needs root."""
    folder = cluster.home / "data" / "flink" / "checkpoints"
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", folder]
    subprocess.run(mount, check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.full
def test_a_full_disk_raises_an_alarm_and_loses_no_record(run, cluster, small_disk):
    def fault(running):
        padding = small_disk / "padding"
        end_s = time.monotonic() + FULL_S
        while time.monotonic() < end_s:  # each completed checkpoint frees some space again
            fill(padding)
            time.sleep(0.02)
        reason = alarm(running.work.name)
        running.notes["alarm"] = reason.replace(str(cluster.home), "$SAGE_HOME")  # in the results
        padding.unlink()

    outcome = run(fault, name="disk_full")

    assert outcome.is_balanced, outcome
    assert "free disk space" in outcome.notes["alarm"]


def fill(path):
    """Append to ``path`` until its disk is full to the last byte."""
    for size in (1 << 16, 1):
        with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
            while True:
                file.write(os.urandom(size))


def alarm(job):
    """The alarm about the job's last checkpoint in ``sage jobs list``."""
    command = [
        sys.executable,
        "-c",
        "from sage_flink.cli import main; main()",
        "jobs",
        "list",
        "--json",
    ]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return next(row for row in listed if row["name"] == job)["alarm"]

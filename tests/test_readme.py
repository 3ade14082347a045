"""Every snippet and command of the README runs."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner
from waiting import wait_until

from sage_flink import cli
from sage_flink.common import Settings
from sage_flink.platform.flink_rest import FlinkRest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", TEXT, re.DOTALL)
PYTHON = [body for kind, body in BLOCKS if kind == "python"]
COMMANDS = [line for kind, body in BLOCKS if kind == "bash" for line in body.splitlines() if line]


def test_every_script_it_names_exists_and_parses():
    scripts = {word for line in COMMANDS for word in line.split() if word.endswith(".sh")}

    assert scripts == {"infra/demo.sh", "infra/test.sh"}
    for script in scripts:
        subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_every_sage_command_it_shows_exists():
    shown = {
        tuple(shlex.split(line, comments=True)[1:3])
        for line in COMMANDS
        if line.startswith("sage ")
    }

    for words in shown:
        command = [w for w in words if w.isalpha() and w != "taskmanager"]
        done = CliRunner().invoke(cli.app, [*command, "--help"])
        assert done.exit_code == 0, (words, done.output)


@pytest.mark.service
@pytest.mark.alone
@pytest.mark.flink
@pytest.mark.timeout(240)
def test_the_pipeline_it_shows_runs():
    (snippet,) = PYTHON
    subprocess.run([sys.executable, "-c", snippet], check=True, timeout=120)
    with FlinkRest(Settings.load().flink_url) as rest:
        job = rest.running("readme")
        assert job is not None
        try:
            wait_until(lambda: rest.all_tasks_running(job.id), 90, "the snippet's job runs")
        finally:
            rest.cancel(job.id)


@pytest.mark.service
@pytest.mark.alone  # runs after the demo and reads its documents and jobs
def test_the_question_it_asks_is_answered():
    (curl,) = re.findall(r"^curl .*?'}\s*$|^curl.*?\]}'$", TEXT, re.DOTALL | re.MULTILINE)
    bin_ = Path(sys.executable).parent
    key = Settings.load().home / "keys" / "gateway"
    line = curl.replace(".sage/keys/gateway", str(key)).replace("sage url", f"{bin_}/sage url")

    assert shutil.which("curl")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)

    assert '"choices"' in done.stdout
    assert '"sources"' in done.stdout

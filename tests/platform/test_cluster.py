"""The Flink target's use of the settings, before anything starts."""

import subprocess
import sys

import pytest

from sage_flink.common import ConfigError, SageError, Settings
from sage_flink.platform.cluster import FlinkOptions, environment, rest_options


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("http://127.0.0.1:8081", "127.0.0.1", "8081", "false"),
        ("http://flink:9000/", "flink", "9000", "false"),
        ("http://flink", "flink", "8081", "false"),
        ("https://flink.example", "flink.example", "443", "true"),
    ],
)
def test_an_address_becomes_host_port_and_tls(url, host, port, tls):
    assert list(rest_options(url).values()) == [host, port, tls]


@pytest.mark.parametrize("url", ["flink:8081", "http://", "http://flink:none", ""])
def test_a_malformed_address_is_refused(url):
    with pytest.raises(ConfigError, match="flink_url must be of the form http://host:8081"):
        rest_options(url)


def test_the_error_for_a_missing_jar_names_the_command_that_builds_it(tmp_path):
    settings = Settings(home=tmp_path)

    with pytest.raises(ConfigError, match=r"native operators are missing .* run `bash infra"):
        environment(FlinkOptions(), settings)


@pytest.mark.flink
@pytest.mark.timeout(180)
def test_making_an_environment_prints_no_warning_about_googles_file_system(tmp_path):
    code = (
        "from pathlib import Path\n"
        "from sage_flink.common import Settings\n"
        "from sage_flink.platform.cluster import FlinkOptions, environment\n"
        "from sage_flink.platform.native_jar import native_jar\n"
        f"settings = Settings(home=Path({str(tmp_path)!r}))\n"
        "native_jar(settings.home).parent.mkdir()\n"
        "native_jar(settings.home).touch()\n"
        "environment(FlinkOptions(target='local'), settings)\n"
        "import logging\n"
        "logging.getLogger('apache_beam.io.filesystems').warning('another warning')\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "GCSFileSystem" not in done.stderr
    assert "another warning" in done.stderr


@pytest.mark.parametrize("backend", ["disk", "", None, ["heap"]])
def test_an_unknown_state_backend_is_refused(backend):
    with pytest.raises(SageError, match="state_backend must be heap or rocksdb"):
        FlinkOptions(state_backend=backend)

"""The Flink target's use of the settings, before anything starts."""

import pytest

from sage_flink.common import ConfigError, Settings
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

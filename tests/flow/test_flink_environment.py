"""The environment of a Flink job is refused before anything starts when it cannot work."""

from pathlib import Path

import pytest
from minicluster import QUIET

from sage_flink.common import ConfigError, Settings
from sage_flink.flow import FlinkOptions

pytestmark = [pytest.mark.flink, *QUIET]


def test_a_job_without_the_native_jar_is_refused(tmp_path: Path) -> None:
    from sage_flink.platform.cluster import environment

    with pytest.raises(ConfigError, match=r"native operators are missing.*infra/setup.sh"):
        environment(FlinkOptions(target="local"), Settings(home=tmp_path))

"""Build hook of the wheel: adds the native Flink operators, which Maven builds.

An editable install has no jar of its own: a checkout uses the one that ``infra/setup.sh`` links.
"""

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

JAR_IN_WHEEL = "sage_flink/platform/sage-native.jar"


class NativeJarHook(BuildHookInterface):
    """Puts ``sage-native.jar`` into the folder of the module that adds it to a job."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the wheel's files."""
        if version == "editable":
            return
        script = Path(self.root) / "infra" / "package" / "native_jar.sh"
        made = subprocess.run(["bash", script], check=True, stdout=subprocess.PIPE, text=True)
        build_data["force_include"][made.stdout.strip()] = JAR_IN_WHEEL

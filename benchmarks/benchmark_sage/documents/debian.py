"""Real documents: the manuals of Debian in six languages, by apt, unpacked without installing."""

import shutil
import subprocess
from pathlib import Path

from sage_flink.common import OperatorNeeded

PACKAGES = (
    "debian-reference-en",
    "debian-reference-de",
    "debian-reference-fr",
    "debian-reference-ja",
    "debian-reference-pt",
    "debian-reference-zh-cn",
    "developers-reference-ru",
)


def fetch(folder: Path) -> None:
    """The documents of the packages below ``folder``, each package in a folder of its name.

    Raises:
        OperatorNeeded: apt cannot be used here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        _run(["apt-get", "download", package], folder)
    for archive in sorted(folder.glob("*.deb")):
        target = folder / archive.name.split("_")[0]
        _run(["dpkg-deb", "-x", archive.name, f"{target.name}.deb-files"], folder)
        shutil.move(folder / f"{target.name}.deb-files" / "usr" / "share", target)
        shutil.rmtree(folder / f"{target.name}.deb-files")
        archive.unlink()


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", "") or ""
        raise OperatorNeeded(
            f"{' '.join(command)}: {error} {detail}; run `apt-get update`"
        ) from error

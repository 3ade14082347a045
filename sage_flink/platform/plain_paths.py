"""Paths in plain characters: any other path is reached through a link.

A blank, an umlaut, ``@``, ``%`` or ``#`` in a path is read differently by each of its readers:
Flink's worker script splits at blanks, java.util.Properties, URIs and supervisord's configuration
each escape other characters, and a JVM in the C locale has no name for an umlaut. A link in plain
characters needs no escapes anywhere, also not in the servers of a later version.
"""

import hashlib
import os
from pathlib import Path
from urllib.parse import quote

from sage_flink.common.errors import ConfigError
from sage_flink.common.settings import sage_cache

#: Kept when the machine restarts, unlike ``/tmp``: a job that Flink restores then needs its links.
SHARED_FOLDER = Path("/var/tmp")  # noqa: S108 - the folder of each user in it is private

#: For the environment of every JVM: it takes the encoding of file names from the locale, resolves
#: links, and in the C locale cannot open a file below ``größe`` by a link either.
UTF8 = {"LC_ALL": "C.UTF-8"}


def is_plain(path: Path) -> bool:
    """Whether every reader of a path takes it as it is: ASCII letters, digits, ``/ . _ - ~``.

    >>> is_plain(Path("/home/me/.sage")), is_plain(Path("/home/größe")), is_plain(Path("/a@b"))
    (True, False, False)
    """
    return quote(os.fsencode(path)) == str(path)


def plain_path(path: Path) -> Path:
    """``path`` if it is plain, else a link to it that is; makes the link if it is missing.

    The link is in the cache folder, or in a private folder in ``/var/tmp`` if the cache folder's
    own path is not plain or cannot be written.

    Raises:
        ConfigError: no link can be made.
    """
    path = path.absolute()
    if is_plain(path):
        return path
    reasons = []
    for folder in (sage_cache() / "paths", SHARED_FOLDER / f"sage-{os.getuid()}"):
        if not is_plain(folder):
            reasons.append(f"{folder} has such characters too")
            continue
        try:
            return _link(folder, path)
        except OSError as error:
            reasons.append(str(error))
    raise ConfigError(
        f"{str(path)!r} has characters that Flink and Kafka cannot take, and no link to it can be "
        f"made ({'; '.join(reasons)}); use a path of ASCII letters, digits, '.', '_' and '-', or "
        "set SAGE_CACHE to a folder with such a path"
    )


def _link(folder: Path, path: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    link = folder / hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    if not (link.is_symlink() and link.readlink() == path):
        scratch = folder / f"{link.name}.{os.getpid()}"
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(path)
        scratch.replace(link)
    return link

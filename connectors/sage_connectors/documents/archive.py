"""Archives: each member of a known kind is a part, with a limit on what they unpack to.

Nothing is written to disk, so a name such as ``../x`` is a name only. Hidden members are left out,
as hidden files of a folder are, and so are those of unknown kinds.
"""

import gzip
import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from sage_connectors.documents.parts import FilePart, name_of
from sage_flink.common.errors import Rejected

#: A member is read like a file, so it has a file's limit.
MEMBER_BYTES_MAX = 64 << 20
#: Of one file with all archives in it.
UNPACKED_BYTES_MAX = 256 << 20
MEMBERS_MAX = 10_000
_ENCRYPTED = 0x1


@dataclass(slots=True)
class Budget:
    """What may still be unpacked of one file, archives in archives included."""

    bytes_left: int = UNPACKED_BYTES_MAX
    members_left: int = MEMBERS_MAX

    def take_member(self) -> None:
        """Count a member.

        Raises:
            Rejected: there are too many.
        """
        self.members_left -= 1
        if self.members_left < 0:
            raise Rejected(f"more than {MEMBERS_MAX} members; the rest is not read")

    def take(self, data: bytes) -> bytes:
        """Count the bytes of a member, and return them.

        Raises:
            Rejected: the member, or all together, are larger than the limit.
        """
        self.bytes_left -= len(data)
        if self.bytes_left < 0:
            raise Rejected(f"unpacks to more than {UNPACKED_BYTES_MAX} bytes; the rest is not read")
        if len(data) > MEMBER_BYTES_MAX:
            raise Rejected(f"unpacks to more than {MEMBER_BYTES_MAX} bytes")
        return data

    @property
    def is_spent(self) -> bool:
        """Whether nothing more may be unpacked."""
        return self.bytes_left < 0 or self.members_left < 0


def gz(path: str, data: bytes, budget: Budget) -> Iterator[FilePart]:
    """The one member, under the name of the file without its suffix."""
    member = f"{path}!{name_of(path)[: -len('.gz')]}"
    try:
        budget.take_member()
        with gzip.open(io.BytesIO(data)) as file:
            unpacked = budget.take(file.read(MEMBER_BYTES_MAX + 1))
        yield FilePart(member, unpacked)
    except Rejected as reason:
        yield FilePart(member, None, f"{member}: {reason}")
    except (OSError, EOFError, zlib.error) as error:
        raise Rejected(f"{path}: broken gzip data: {error}") from error


def zip_archive(path: str, data: bytes, budget: Budget) -> Iterator[FilePart]:
    """The members in the archive's order; one that cannot be unpacked has its reason.

    Where a limit is reached the member has that reason, and those behind it are not read.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    # zipfile raises NotImplementedError for a member of a later version of the format.
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise Rejected(f"{path}: broken zip archive: {error}") from error
    seen: set[str] = set()
    for info in archive.infolist():
        if info.is_dir() or _is_hidden(info.filename):
            continue
        member = f"{path}!{info.filename}"
        try:
            yield FilePart(member, _unpack(archive, info, seen, budget))
        except Rejected as reason:
            yield FilePart(member, None, f"{member}: {reason}")
        if budget.is_spent:
            return


def _unpack(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, seen: set[str], budget: Budget
) -> bytes:
    budget.take_member()
    if info.filename in seen:
        raise Rejected("the archive has this name twice; the first was read")
    seen.add(info.filename)
    if stat.S_ISLNK(info.external_attr >> 16):
        raise Rejected("a link; links in an archive are not followed")
    if info.flag_bits & _ENCRYPTED:
        raise Rejected("encrypted")
    try:
        with archive.open(info) as file:
            return budget.take(file.read(MEMBER_BYTES_MAX + 1))
    except Rejected:
        raise
    except Exception as error:  # of zlib, bz2, lzma and struct, as the bytes happen to be
        raise Rejected(f"cannot be unpacked: {type(error).__name__}: {error}") from error


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/") if part not in ("", ".."))

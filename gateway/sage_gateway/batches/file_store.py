"""The contents of files, in a folder of their own: mode 0600, named by their ids."""

import os
import secrets
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PIECE_BYTES = 1 << 20


class Disk:
    """The folder. Methods wait for the disk and raise ``OSError``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, known: Collection[str]) -> None:
        """Make the folder; what a crash has left half written is in none of the rows, and goes."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._folder.iterdir():
            if path.name not in known:
                path.unlink()

    def path(self, file_id: str) -> Path:
        """Where the file is. ``file_id`` is one that is known: no caller's word becomes a path."""
        return self._folder / file_id

    def copied(self, source: BinaryIO) -> tuple[str, int]:
        """The id of a new file with what is left of ``source``, and its size in bytes."""
        return self.written(iter(lambda: source.read(PIECE_BYTES), b""))

    def written(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """The id of a new file of these pieces, and its size in bytes."""
        file_id = f"file-{secrets.token_hex(12)}"
        size = 0
        with self._new(file_id) as file:
            for piece in pieces:
                file.write(piece)
                size += len(piece)
        return file_id, size

    def drop(self, file_id: str) -> None:
        """The file is no more."""
        self.path(file_id).unlink(missing_ok=True)

    @contextmanager
    def _new(self, file_id: str) -> Iterator[BinaryIO]:
        path = self.path(file_id)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise

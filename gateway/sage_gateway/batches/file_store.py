"""File contents in a folder of their own: mode 0600, named by file id."""

import os
import secrets
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 20


class FileStore:
    """The folder of file contents. Methods block on the disk and raise ``OSError``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, known_ids: Collection[str]) -> None:
        """Make the folder. Files of other ids are half-written leftovers of a crash: deleted."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._folder.iterdir():
            if path.name not in known_ids:
                path.unlink()

    def path(self, file_id: str) -> Path:
        """Where the file is. ``file_id`` must come from the store, never from a request."""
        return self._folder / file_id

    def copy(self, source: BinaryIO) -> tuple[str, int]:
        """Write the rest of ``source`` to a new file; its id and its size in bytes."""
        return self.write(iter(lambda: source.read(CHUNK_BYTES), b""))

    def write(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Write the chunks to a new file; its id and its size in bytes."""
        file_id = f"file-{secrets.token_hex(12)}"
        size = 0
        with self._create(file_id) as file:
            for chunk in chunks:
                file.write(chunk)
                size += len(chunk)
        return file_id, size

    def delete(self, file_id: str) -> None:
        """Delete the file, if it exists."""
        self.path(file_id).unlink(missing_ok=True)

    @contextmanager
    def _create(self, file_id: str) -> Iterator[BinaryIO]:
        path = self.path(file_id)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise

"""Rewrite the ``.pth`` files of a virtual environment in ASCII.

usage: ascii_pth.py ENVIRONMENT

An editable install writes the path of the checkout into such a file. Python 3.11 reads it in the
encoding of the locale, and does not start at all where the path has an umlaut and the locale is C.
"""

import sys
from pathlib import Path

#: Python runs a line that begins so. The bytes of the path are the same in every locale.
LINE = "import os, sys; sys.path.append(os.fsdecode({path!r}))"


def to_ascii(text: bytes) -> str:
    """The lines of a ``.pth`` file in ASCII, with the same effect.

    >>> print(to_ascii("/größe".encode()), end="")
    import os, sys; sys.path.append(os.fsdecode(b'/gr\\xc3\\xb6\\xc3\\x9fe'))
    """
    lines = (line for line in text.splitlines() if line)
    return "".join(
        (line.decode() if line.isascii() else LINE.format(path=line)) + "\n" for line in lines
    )


if __name__ == "__main__":
    for file in Path(sys.argv[1]).glob("lib/python3*/site-packages/*.pth"):
        if not (text := file.read_bytes()).isascii():
            scratch = file.with_suffix(".new")
            scratch.write_text(to_ascii(text), encoding="ascii")
            scratch.replace(file)

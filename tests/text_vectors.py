"""Vectors of texts without a model: hashed letters, near for texts that share most of theirs."""

import struct
from hashlib import blake2b

DIM = 64


def text_vector(text: str) -> bytes:
    """Little-endian float32: how often each three letters in a row, hashed, are in the text."""
    counts = [0.0] * DIM
    padded = f"  {' '.join(text.lower().split())} "
    for at in range(len(padded) - 2):
        digest = blake2b(padded[at : at + 3].encode(), digest_size=4).digest()
        counts[digest[0] % DIM] += 1.0
    return struct.pack(f"<{DIM}f", *counts)

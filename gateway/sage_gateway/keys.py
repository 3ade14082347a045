"""The API key: kept as a hash, compared in constant time, made at the first start."""

import base64
import binascii
import contextlib
import hmac
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from sage_flink.common import ConfigError, Settings


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that may ask; what is held are their hashes."""

    digests: tuple[bytes, ...]

    @classmethod
    def of(cls, *keys: str) -> "Keys":
        """The set of these keys."""
        return cls(tuple(sha256(k.encode()).digest() for k in keys))

    def admit(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether ``Authorization`` carries one of them. Header names are lower case.

        As ``Bearer``, or as the password of ``Basic`` with any user name, which is how a browser
        asks for it.
        """
        for name, value in headers:
            if name == b"authorization":
                digest = sha256(_carried(value)).digest()
                found = [hmac.compare_digest(digest, known) for known in self.digests]
                return any(found)
        return False


def _carried(value: bytes) -> bytes:
    scheme, _, rest = value.partition(b" ")
    match scheme.lower():
        case b"bearer":
            return rest.strip()
        case b"basic":
            with contextlib.suppress(binascii.Error):
                return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
    return b""


def local_key(settings: Settings) -> str:
    """The key of this machine; without one it is made, written (mode 0600) and printed once.

    Raises:
        ConfigError: it can be neither read nor written.
    """
    path = settings.home / "keys" / "gateway"
    if os.environ.get("SAGE_GATEWAY_KEY") or path.exists():
        return settings.secret("gateway")
    key = f"sk-sage-{secrets.token_urlsafe(32)}"
    try:
        _write(path, key)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; set SAGE_GATEWAY_KEY") from error
    print(f"gateway key, shown this once (kept in {path}): {key}", flush=True)
    return key


def _write(path: Path, key: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(key + "\n")

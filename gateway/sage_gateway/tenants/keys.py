"""API keys: stored as hashes, compared in constant time; the local key is made at the first start.

SHA-256 without salt or stretching is right here, because a key is 256 random bits and cannot be
guessed. The lookup is by hash, so its timing reveals a hash at most, and a hash reveals no key.
"""

import base64
import binascii
import contextlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from sage_flink.common import ConfigError, Settings
from sage_gateway.config.pool_spec import LOCAL, LimitsSpec

NO_LIMITS = LimitsSpec()


class Scope(StrEnum):
    """What a key may do; ``admin`` includes the other scopes."""

    INFER = "infer"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """Metadata of a key; the key itself is not stored.

    ``cache_ttl_s``: the maximum age of a cached answer that its requests accept; 0: not cached.
    """

    id: str
    digest: str
    tenant: str
    scopes: frozenset[Scope]
    name: str = ""
    limits: LimitsSpec = NO_LIMITS
    made_s: int = 0
    cache_ttl_s: int = 0

    def may(self, scope: Scope) -> bool:
        """Whether the key has this scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


class Keys:
    """The valid keys: the local ones, which need no store, and those of the store."""

    def __init__(self, local: Iterable[Key]) -> None:
        self._local = {key.digest: key for key in local}
        self._all = dict(self._local)

    @classmethod
    def of(cls, *keys: str) -> "Keys":
        """Only these local keys, of scope ``admin``."""
        scopes = frozenset({Scope.ADMIN})
        return cls(Key(LOCAL, digest(key.encode()), LOCAL, scopes) for key in keys)

    def replace(self, stored: Iterable[Key]) -> None:
        """Set the keys of the store; the local keys stay."""
        self._all = {key.digest: key for key in stored} | self._local

    def by_id(self, key_id: str) -> Key | None:
        """The key of that id, unless it was revoked."""
        return next((key for key in self._all.values() if key.id == key_id), None)

    def find(self, headers: Mapping[bytes, bytes]) -> Key | None:
        """The key that ``Authorization`` carries. Header names are lower case.

        As ``Bearer``, or as the password of ``Basic`` with any user name, as a browser sends it.
        """
        value = headers.get(b"authorization")
        if value is None:
            return None
        shown = digest(_secret_in(value))
        found = self._all.get(shown)
        return found if found and hmac.compare_digest(found.digest, shown) else None


def is_basic(headers: Mapping[bytes, bytes]) -> bool:
    """Whether ``Authorization`` is ``Basic``, which a browser adds to requests of any site."""
    return headers.get(b"authorization", b"")[:6].lower() == b"basic "


def digest(key: bytes) -> str:
    """The stored hash of a key."""
    return sha256(key).hexdigest()


def fresh() -> str:
    """A new key of 256 random bits."""
    return f"sk-sage-{secrets.token_urlsafe(32)}"


def _secret_in(value: bytes) -> bytes:
    scheme, _, rest = value.partition(b" ")
    match scheme.lower():
        case b"bearer":
            return rest.strip()
        case b"basic":
            with contextlib.suppress(binascii.Error):
                return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
    return b""


def local_key(settings: Settings) -> str:
    """The key of this machine; the first call makes it, writes it (mode 0600) and prints it.

    Raises:
        ConfigError: it can be neither read nor written.
    """
    path = settings.home / "keys" / "gateway"
    if os.environ.get("SAGE_GATEWAY_KEY") or path.exists():
        return settings.secret("gateway")
    key = fresh()
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

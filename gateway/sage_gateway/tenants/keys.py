"""API keys: kept as hashes, compared in constant time; the local one is made at the first start.

SHA-256 without salt or stretching is right here, because a key is 256 random bits: there is nothing
to guess. A dictionary finds the hash, so its timing tells of a hash, from which no key follows.
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
from sage_gateway.config.pool_spec import LimitsSpec

LOCAL = "local"
NO_LIMITS = LimitsSpec()


class Scope(StrEnum):
    """What a key may do; ``admin`` may do all."""

    INFER = "infer"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """All that is known of a key; the key itself is not.

    ``cache_ttl_s``: how old an answer may be that an equal request of the key is given; 0: none.
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
        """Whether it has this scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


class Keys:
    """The keys that may ask: the local ones, which need no store, and those of the store."""

    def __init__(self, local: Iterable[Key]) -> None:
        self._local = {key.digest: key for key in local}
        self._all = dict(self._local)

    @classmethod
    def of(cls, *keys: str) -> "Keys":
        """Only these, which may do all."""
        scopes = frozenset({Scope.ADMIN})
        return cls(Key(LOCAL, digest(key.encode()), LOCAL, scopes) for key in keys)

    def replace(self, stored: Iterable[Key]) -> None:
        """What the store has now; the local keys stay."""
        self._all = {key.digest: key for key in stored} | self._local

    def named(self, key_id: str) -> Key | None:
        """The key of that id, as long as it is not revoked."""
        return next((key for key in self._all.values() if key.id == key_id), None)

    def find(self, headers: Mapping[bytes, bytes]) -> Key | None:
        """The key that ``Authorization`` carries. Header names are lower case.

        As ``Bearer``, or as the password of ``Basic`` with any user name, which is how a browser
        asks for it.
        """
        value = headers.get(b"authorization")
        if value is None:
            return None
        shown = digest(_carried(value))
        found = self._all.get(shown)
        return found if found and hmac.compare_digest(found.digest, shown) else None


def digest(key: bytes) -> str:
    """What is kept of a key."""
    return sha256(key).hexdigest()


def fresh() -> str:
    """A new key of 256 random bits."""
    return f"sk-sage-{secrets.token_urlsafe(32)}"


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

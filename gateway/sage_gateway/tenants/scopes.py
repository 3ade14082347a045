"""Scope that each route requires: a table, and ``admin`` for every other route."""

from sage_gateway.errors import InvalidKey, MissingScope
from sage_gateway.tenants.keys import Key, Scope

OPEN = frozenset({"/health"})
#: Every key may list the models.
ANY_KEY = "/v1/models"
READ = frozenset({"/v1/usage", "/metrics", "/pool/decisions", "/docs", "/openapi.json"})
#: Scripts and styles of ``/docs``.
DOCS_ASSETS = "/docs/assets"
INFER = "/v1/"


def required_scope(path: str) -> Scope | None:
    """The scope for ``path``; None if any key will do. Paths of ``OPEN`` are not checked.

    Unknown paths require ``admin``, except below ``/v1/``, where the client gets a 404.
    """
    if path in READ or path.startswith(DOCS_ASSETS + "/"):
        return Scope.READ
    if path == ANY_KEY or path.startswith(ANY_KEY + "/"):
        return None
    return Scope.INFER if path.startswith(INFER) else Scope.ADMIN


def check(key: Key | None, path: str) -> Key:
    """The key, if it may use ``path``.

    Raises:
        InvalidKey, MissingScope: there is no key, or it lacks the scope.
    """
    if key is None:
        raise InvalidKey(
            "this needs an API key: send 'Authorization: Bearer KEY', with the key in "
            "$SAGE_HOME/keys/gateway, or one made by `sage pool keys create`",
        )
    scope = required_scope(path)
    if scope is not None and not key.may(scope):
        has = ", ".join(sorted(key.scopes))
        message = f"{path} needs a key of scope {scope}; this one has {has}"
        raise MissingScope(message)
    return key

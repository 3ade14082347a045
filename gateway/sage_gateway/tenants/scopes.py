"""Which scope a route needs: a table, and admin for all that is not in it."""

from sage_gateway.errors import InvalidKey, MissingScope
from sage_gateway.tenants.keys import Key, Scope

OPEN = frozenset({"/health"})
#: Whoever has a key may know what there is to ask.
ANY_KEY = "/v1/models"
READ = frozenset({"/v1/usage", "/metrics", "/pool/decisions", "/docs", "/redoc", "/openapi.json"})
INFER = "/v1/"


def needed(path: str) -> Scope | None:
    """The scope for ``path``, None where every key will do; paths of ``OPEN`` are not asked about.

    What nobody thought of needs admin, but below ``/v1/``: there a client is told by a 404.
    """
    if path in READ:
        return Scope.READ
    if path == ANY_KEY or path.startswith(ANY_KEY + "/"):
        return None
    return Scope.INFER if path.startswith(INFER) else Scope.ADMIN


def check(key: Key | None, path: str) -> Key:
    """The key, which may ask ``path``.

    Raises:
        GatewayError: 401, there is none; 403, it may not.
    """
    if key is None:
        raise InvalidKey(
            "this needs an API key: send 'Authorization: Bearer KEY', with the key in "
            "$SAGE_HOME/keys/gateway, or one made by `sage pool keys create`",
        )
    scope = needed(path)
    if scope is not None and not key.may(scope):
        has = ", ".join(sorted(key.scopes))
        message = f"{path} needs a key of scope {scope}; this one has {has}"
        raise MissingScope(message)
    return key

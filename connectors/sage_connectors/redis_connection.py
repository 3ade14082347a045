"""How a client of Redis is opened: the options of a connection, and a check."""

from typing import Any

from sage_connectors.tls import Tls
from sage_flink.common.connections import RedisConnection
from sage_flink.common.errors import ConfigError, StoreUnavailable

TIMEOUT_S = 5.0


def redis_options(connection: RedisConnection) -> dict[str, Any]:
    """Options of redis-py, apart from the URL; the secrets resolved.

    Raises:
        ConfigError: a secret or a file is missing here.
    """
    options: dict[str, Any] = {}
    if connection.username:
        options["username"] = connection.username
    if connection.password:
        options["password"] = connection.secret("password")
    if connection.ca:
        Tls(connection.where, connection.ca).context()  # a missing file is named at the start
        options["ssl_ca_certs"] = connection.ca
    return options


def check(connection: RedisConnection) -> str:
    """The server's version and its number of keys.

    Raises:
        ConfigError: a setting is wrong, or the package ``redis`` is missing.
        StoreUnavailable: the server does not answer.
    """
    try:
        import redis
    except ModuleNotFoundError as error:
        raise ConfigError("redis is missing: pip install 'sage-flink[gateway]'") from error
    Tls(connection.where, connection.ca).check(connection.url)
    timeouts = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    client = redis.Redis.from_url(connection.url, **redis_options(connection), **timeouts)
    try:
        about: Any = client.info("server")
        return f"Redis {about['redis_version']}, {client.dbsize()} keys"
    except redis.exceptions.AuthenticationError as error:
        raise ConfigError(f"{connection.where}: username, password: {error}") from error
    except redis.exceptions.ResponseError as error:
        raise ConfigError(f"{connection.where}: {error}") from error
    except (redis.exceptions.RedisError, OSError) as error:
        raise StoreUnavailable(f"{connection.where}: url: {error}") from error
    finally:
        client.close()

"""Opens a connection once and says what is there: for ``sage connections test``.

Every error is one sentence that names the setting: it is that of the adapter, which a job gets too.
"""

from typing import Any, assert_never

from sage_flink.common.connections import (
    Connection,
    GatewayConnection,
    InfluxdbConnection,
    KafkaConnection,
    MilvusConnection,
    RedisConnection,
    SchemaRegistryConnection,
)
from sage_flink.common.errors import ConfigError, StoreUnavailable
from sage_flink.common.http_clients import httpx_options
from sage_flink.common.settings import Settings

TIMEOUT_S = 10.0


def check_server(connection: Connection) -> str:
    """The server's version and what it holds, in a few words.

    Raises:
        ConfigError: a setting of the connection is wrong, or a package is missing.
        StoreUnavailable: the server does not answer.
    """
    match connection:
        case KafkaConnection():
            return _kafka(connection)
        case MilvusConnection():
            return _milvus(connection)
        case InfluxdbConnection():
            return _influxdb(connection)
        case RedisConnection():
            return _redis(connection)
        case SchemaRegistryConnection():
            return _schema_registry(connection)
        case GatewayConnection():
            return _gateway(connection)
        case _:
            assert_never(connection)


def _kafka(connection: KafkaConnection) -> str:
    from sage_connectors.kafka_connection import client

    with client("KafkaAdminClient", connection) as admin:
        brokers = len(admin.describe_cluster()["brokers"])
        topics = len(admin.list_topics())
        version = admin._manager.broker_version_data.broker_version_str
    return f"Kafka {version}, {brokers} broker{'s'[: brokers != 1]}, {topics} topics"


def _milvus(connection: MilvusConnection) -> str:
    from sage_connectors.milvus_connection import check, open_client, server_version

    client = open_client(connection)
    try:
        collections = check(connection, lambda: len(client.list_collections()))
        version = check(connection, lambda: server_version(client))
        return f"Milvus {version}, {collections} collections"
    finally:
        client.close()


def _influxdb(connection: InfluxdbConnection) -> str:
    from sage_connectors.influxdb_connection import check, open_client

    org = connection.org or Settings.load().influxdb_org
    with open_client(connection, org) as client:
        version = check(connection, org, client.version)
        found = check(connection, org, client.buckets_api().find_buckets)
        return f"InfluxDB {version}, {len(found.buckets)} buckets"


def _redis(connection: RedisConnection) -> str:
    from sage_connectors.redis_connection import check

    return check(connection)


def _schema_registry(connection: SchemaRegistryConnection) -> str:
    from sage_connectors.formats.schema_registry import subjects

    found = len(subjects(connection))
    return f"schema registry, {found} subject{'s'[: found != 1]}"


def _gateway(connection: GatewayConnection) -> str:
    import httpx

    from sage_connectors.http import pool_key, pool_tls
    from sage_connectors.tls import Tls

    names: set[str] = set()
    for url in connection.url.split(","):
        address = f"{url.strip().rstrip('/')}/v1/models"
        Tls(connection.where, connection.ca).check(address)
        headers = {"Authorization": f"Bearer {key}"} if (key := pool_key(connection)) else {}
        options: dict[str, Any] = {"headers": headers, "timeout": TIMEOUT_S}
        options |= httpx_options(address, pool_tls(connection))
        try:
            answer = httpx.get(address, **options)
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"{connection.where}: url: {address}: {error}") from error
        if answer.status_code in {401, 403}:
            raise ConfigError(f"{connection.where}: key: {address} does not accept it")
        if answer.status_code != 200:
            raise ConfigError(f"{connection.where}: url: {address}: HTTP {answer.status_code}")
        names |= {str(model["id"]) for model in answer.json()["data"]}
    return f"{len(names)} models"

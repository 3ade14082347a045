"""A Kafka broker for tests with a listener for each kind of security, and some with a fault."""

import base64
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs

from certificates import Authority
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from loopback_server import loopback_server
from redis_server import free_port
from waiting import wait_until

from sage_connectors.kafka_connection import client, library
from sage_flink.common import sage_home
from sage_flink.platform.stack.kafka import format_command, java, properties, speaks_kafka
from sage_flink.platform.stack.stack_directory import StackDirectory

USER = "ingest"
#: Two passwords with signs that JAAS, properties and shells treat in their own way.
PASSWORD, TOKEN_SECRET = 'sword"fi\\sh {$}=é', "tok/en+secret="
MECHANISMS = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"
MODULES = "org.apache.kafka.common.security"
OAUTH_HANDLER = f"{MODULES}.oauthbearer.OAuthBearerValidatorCallbackHandler"
#: Listener -> protocol and the certificate that it shows.
LISTENERS = {
    "OPEN": ("PLAINTEXT", ""),
    "SASL": ("SASL_SSL", "server"),
    "MTLS": ("SSL", "server"),
    "EXPIRED": ("SASL_SSL", "expired"),
    "ELSEWHERE": ("SASL_SSL", "elsewhere"),
    "CONTROLLER": ("PLAINTEXT", ""),
}


@dataclass(frozen=True)
class SecuredBroker:
    """Ports by listener, the authority of the certificates, and where a token is to be had."""

    folder: Path
    ports: dict[str, int]
    authority: Authority
    token_url: str

    def server(self, listener: str = "SASL") -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    def fields(self, listener: str = "SASL", **changes: object) -> dict[str, object]:
        """A connection with SCRAM-SHA-512 that works, in the form of ``connections.yaml``."""
        good = {
            "kind": "kafka",
            "servers": self.server(listener),
            "protocol": "SASL_SSL",
            "mechanism": "SCRAM-SHA-512",
            "username": USER,
            "password": f"file:{self.folder / 'password'}",
            "ca": str(self.authority.file),
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}


@contextmanager
def secured_broker(folder: Path) -> Iterator[SecuredBroker]:
    """A broker that runs during the block, with a user for PLAIN, both SCRAMs and OAUTHBEARER."""
    authority = Authority(folder)
    authority.certificate("server", ["127.0.0.1", "localhost"])
    authority.certificate("expired", ["127.0.0.1"], days=-3)
    authority.certificate("elsewhere", ["broker.example"])
    authority.certificate("client", ["client.example"])
    (folder / "password").write_text(PASSWORD + "\n")
    (folder / "wrong").write_text("hunter2\n")
    (folder / "token-secret").write_text(TOKEN_SECRET + "\n")
    ports = {listener: free_port() for listener in LISTENERS}
    with (
        loopback_server(TokenServer) as token_port,
        (folder / "broker.log").open("w") as log,
        _broker(folder, ports, f"http://127.0.0.1:{token_port}", log),
    ):
        _store_scram_users(f"127.0.0.1:{ports['OPEN']}")
        yield SecuredBroker(folder, ports, authority, f"http://127.0.0.1:{token_port}/token")


@contextmanager
def _broker(folder: Path, ports: dict[str, int], token_server: str, log: IO[str]) -> Iterator[None]:
    settings = folder / "server.properties"
    lines = _properties(folder, ports, token_server).items()
    settings.write_text("".join(f"{name}={_escaped(str(value))}\n" for name, value in lines))
    directory = StackDirectory.at(sage_home())
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    subprocess.run(
        format_command(directory, settings, cluster), check=True, capture_output=True, timeout=60
    )
    allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={token_server}/keys"
    options = "-Xmx512m", "-XX:TieredStopAtLevel=1", allowed
    command = (*java(directory, *options), "kafka.Kafka", str(settings))
    broker = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        wait_until(lambda: speaks_kafka(ports["OPEN"]), 60, f"the broker, see {folder}")
        yield
    finally:
        broker.kill()
        broker.wait()


class TokenServer(BaseHTTPRequestHandler):
    """OAuth 2.0 client credentials; the tokens are JWTs, whose key is at ``/keys``."""

    key = rsa.generate_private_key(65_537, 2048)

    def do_POST(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        good = base64.b64decode(given).decode() == f"{USER}:{TOKEN_SECRET}"
        if not good or form.get("grant_type") != ["client_credentials"]:
            self._answer(401, {"error": "invalid_client"})
            return
        now = int(time.time())
        head = {"alg": "RS256", "typ": "JWT", "kid": "one"}
        claims = {"sub": USER, "iat": now, "exp": now + 300, "scope": "kafka"}
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), SHA256())
        self._answer(200, {"access_token": f"{signed}.{_base64(signature)}", "expires_in": 300})

    def do_GET(self) -> None:
        numbers = self.key.public_key().public_numbers()
        modulus = _base64(numbers.n.to_bytes(256, "big"))
        jwk = {"n": modulus, "e": "AQAB", "kty": "RSA", "kid": "one", "alg": "RS256", "use": "sig"}
        self._answer(200, {"keys": [jwk]})

    def _answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not printed."""


def _properties(folder: Path, ports: dict[str, int], token_server: str) -> dict[str, str | int]:
    base = properties(
        folder / "data", {"kafka": ports["OPEN"], "kafka_controller": ports["CONTROLLER"]}
    )
    all_ = ",".join(f"{listener}://127.0.0.1:{port}" for listener, port in ports.items())
    quoted = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
    plain = f'{MODULES}.plain.PlainLoginModule required user_{USER}="{quoted}";'
    oauth = f"{MODULES}.oauthbearer.OAuthBearerLoginModule required;"
    made: dict[str, str | int] = {
        **base,
        "listeners": all_,
        "advertised.listeners": all_.rpartition(",CONTROLLER")[0],
        "inter.broker.listener.name": "OPEN",
        "listener.security.protocol.map": ",".join(
            f"{listener}:{protocol}" for listener, (protocol, _) in LISTENERS.items()
        ),
        "listener.name.mtls.ssl.client.auth": "required",
        "log.dirs": str(folder / "data"),
    }
    for listener, (protocol, certificate) in LISTENERS.items():
        prefix = f"listener.name.{listener.lower()}"
        if certificate:
            made |= {
                f"{prefix}.ssl.keystore.type": "PEM",
                f"{prefix}.ssl.keystore.location": str(folder / f"{certificate}.both.pem"),
                f"{prefix}.ssl.truststore.type": "PEM",
                f"{prefix}.ssl.truststore.location": str(folder / "ca.pem"),
            }
        if protocol == "SASL_SSL":
            scram = f"{MODULES}.scram.ScramLoginModule required;"
            made |= {
                f"{prefix}.sasl.enabled.mechanisms": MECHANISMS,
                f"{prefix}.plain.sasl.jaas.config": plain,
                f"{prefix}.scram-sha-256.sasl.jaas.config": scram,
                f"{prefix}.scram-sha-512.sasl.jaas.config": scram,
                f"{prefix}.oauthbearer.sasl.jaas.config": oauth,
                f"{prefix}.oauthbearer.sasl.server.callback.handler.class": OAUTH_HANDLER,
                f"{prefix}.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": f"{token_server}/keys",
            }
    return made


def _store_scram_users(server: str) -> None:
    with client("KafkaAdminClient", server) as admin:
        made = library().admin
        for kind in (made.ScramMechanism.SCRAM_SHA_256, made.ScramMechanism.SCRAM_SHA_512):
            user = made.UserScramCredentialUpsertion(USER, kind, PASSWORD, iterations=4096)
            # One request each: a broker refuses two changes of one user, in its answer only.
            assert admin.alter_user_scram_credentials([user]) == {USER: None}


def _escaped(value: str) -> str:
    """A value of a file that Java reads as properties."""
    return (
        value.replace("\\", "\\\\")
        .encode("ascii", "backslashreplace")
        .decode()
        .replace("\\xe9", "\\u00e9")
    )


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

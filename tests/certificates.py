"""Certificates for tests: an authority, servers with good and bad ones, a client."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


class Authority:
    """Signs certificates into ``folder``; its own is ``NAME.pem``."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder, self.key, self.name = folder, ec.generate_private_key(ec.SECP256R1()), name
        made = _builder(name, name, self.key, 30 * DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(made.sign(self.key, SHA256()).public_bytes(Encoding.PEM))

    def certificate(
        self, name: str, hosts: list[str], *, days: int = 30, password: str = ""
    ) -> tuple[Path, Path]:
        """The files of a certificate and its key; ``days`` below 0 are those since it expired.

        The key is encrypted with ``password``, if there is one.
        A third file, ``NAME.both.pem``, holds both.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(name, self.name, key, days * DAY).add_extension(
            x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False
        )
        certificate, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(made.sign(self.key, SHA256()).public_bytes(Encoding.PEM))
        kept = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kept))
        both = self.folder / f"{name}.both.pem"
        both.write_bytes(secret.read_bytes() + certificate.read_bytes())
        return certificate, secret


def server_context(folder: Path, name: str, *, clients_of: str = "") -> ssl.SSLContext:
    """TLS of a server with the certificate ``name``, which wants one of ``clients_of`` if named."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    if clients_of:
        context.load_verify_locations(folder / f"{clients_of}.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _builder(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + min(life, timedelta()) - 10 * DAY)
        .not_valid_after(now + life)
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)

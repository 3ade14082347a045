"""Certificates of a secured stack: its own certificate authority, and one for all its servers.

Three files in ``keys/tls``, all of mode 0600: ``ca.key``; ``ca.pem``, which clients trust; and
``server.pem``, the servers' key and certificate in one file, as all of them take it. They are made
once and kept. A certificate that is about to expire is replaced when the stack starts: the servers'
every year by the same authority, so that clients notice nothing.

Source: RFC 5280, sections 4.2.1 (extensions) and 6.1 (validation).
"""

import socket
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sage_flink.platform.stack.stack_directory import StackDirectory, write_private

AUTHORITY_DAYS, SERVER_DAYS, RENEWAL_DAYS = 3650, 397, 30
#: A clock that is a little behind must not refuse a new certificate.
BACKDATED = timedelta(hours=1)


def server_names() -> tuple[str, ...]:
    """The names and addresses of this machine that the certificate is valid for."""
    machine = socket.gethostname()
    names = ("localhost", machine) if machine.isascii() and machine else ("localhost",)
    return (*dict.fromkeys(names), "127.0.0.1", "::1")


def has_authority(directory: StackDirectory) -> bool:
    """Whether there is an authority that can be kept."""
    return _read_authority(directory.tls, datetime.now(UTC)) is not None


def ensure(
    directory: StackDirectory, *, names: tuple[str, ...] = (), now: datetime | None = None
) -> bool:
    """Make the certificates that are missing, damaged or about to expire; whether any was.

    A new authority replaces the server certificate as well.
    """
    folder, now = directory.tls, now or datetime.now(UTC)
    names = names or server_names()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = _read_authority(folder, now)
    if authority is None:
        authority = _make_authority(folder, now)
    issuer, key = authority
    if _is_usable(_read_certificate(folder / "server.pem"), issuer, names, now):
        return False
    _make_server(folder, issuer, key, names, now)
    return True


def expiry(directory: StackDirectory) -> datetime | None:
    """When the servers' certificate expires; None without one."""
    certificate = _read_certificate(directory.tls / "server.pem")
    return certificate.not_valid_after_utc if certificate else None


def _is_current(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether it is valid now and for RENEWAL_DAYS more."""
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return first <= now <= last - timedelta(days=RENEWAL_DAYS)


def _is_usable(
    certificate: x509.Certificate | None,
    issuer: x509.Certificate,
    names: tuple[str, ...],
    now: datetime,
) -> bool:
    """Whether ``certificate`` can be kept: of this issuer, for these names, not about to expire."""
    if certificate is None or not _is_current(certificate, now):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(found) == set(_alternative_names(names))


def _alternative_names(names: tuple[str, ...]) -> list[x509.GeneralName]:
    return [_general_name(name) for name in names]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _read_certificate(path: Path) -> x509.Certificate | None:
    """The first certificate of a PEM file, if its own key is in it or none is; None if damaged."""
    try:
        content = path.read_bytes()
        certificate = x509.load_pem_x509_certificate(content)
        if b"PRIVATE KEY" in content:
            key = load_pem_private_key(content, None)
            return certificate if key.public_key() == certificate.public_key() else None
    except (OSError, ValueError, TypeError):
        return None
    return certificate


def _read_authority(
    folder: Path, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    certificate = _read_certificate(folder / "ca.pem")
    if certificate is None or not _is_current(certificate, now):
        return None
    try:
        key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    return (certificate, key) if key.public_key() == certificate.public_key() else None


def _make_authority(
    folder: Path, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("sage stack authority")
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _builder(name, name, key, now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    certificate = builder.sign(key, SHA256())
    write_private(folder / "ca.key", _pem(key))
    write_private(folder / "ca.pem", certificate.public_bytes(Encoding.PEM))
    return certificate, key


def _make_server(
    folder: Path,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    now: datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    days = min(SERVER_DAYS, (issuer.not_valid_after_utc - now).days)
    builder = (
        _builder(_name("sage stack"), issuer.subject, key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        # Kafka's broker is a client as well: of its controller, and of itself.
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
        .add_extension(authority_key, critical=False)
    )
    certificate = builder.sign(issuer_key, SHA256())
    write_private(folder / "server.pem", _pem(key) + certificate.public_bytes(Encoding.PEM))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # PKCS 8, the only form that Kafka reads.
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

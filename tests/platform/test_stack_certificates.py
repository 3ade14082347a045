"""Certificates of a secured stack: made once, for this machine, replaced before they expire."""

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from sage_flink.platform.stack import certificates, truststore
from sage_flink.platform.stack.server import trusting
from sage_flink.platform.stack.stack_directory import StackDirectory

NAMES = ("localhost", "machine-1", "127.0.0.1", "::1")


@pytest.fixture
def home(tmp_path):
    return StackDirectory.at(tmp_path)


def pem(home, name="server"):
    return x509.load_pem_x509_certificate((home.tls / f"{name}.pem").read_bytes())


def handshake(home, *, host="127.0.0.1", trusted=None):
    """A TLS connection to a server with the stack's certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(home.tls / "server.pem")
    near, far = socket.socketpair()

    def answer():
        try:
            with server.wrap_socket(far, server_side=True) as connection:
                connection.sendall(b"hello")
        except OSError:
            far.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with trusting(trusted or home.tls / "ca.pem").wrap_socket(
            near, server_hostname=host
        ) as tls:
            return tls.recv(5)
    finally:
        near.close()
        thread.join(10)


def test_the_certificate_is_valid_for_loopback_and_the_name_of_the_machine(home):
    certificates.ensure(home, names=NAMES)

    names = pem(home).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "machine-1"}
    assert {str(each) for each in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}
    assert socket.gethostname() in certificates.server_names()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_client_that_trusts_the_authority_connects(home, host):
    certificates.ensure(home)

    assert handshake(home, host=host) == b"hello"


def test_a_client_refuses_another_host_and_another_authority(home, tmp_path):
    other = StackDirectory.at(tmp_path / "other")
    certificates.ensure(home)
    certificates.ensure(other)

    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'example\.com'"):
        handshake(home, host="example.com")
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        handshake(home, trusted=other.tls / "ca.pem")


def test_the_authority_signs_no_other_authority_and_the_servers_sign_nothing(home):
    certificates.ensure(home, names=NAMES)

    of = {name: pem(home, name).extensions for name in ("ca", "server")}
    limits = {
        name: found.get_extension_for_class(x509.BasicConstraints) for name, found in of.items()
    }
    assert (limits["ca"].critical, limits["ca"].value.ca, limits["ca"].value.path_length) == (
        True,
        True,
        0,
    )
    assert not limits["server"].value.ca
    assert not of["server"].get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert ExtendedKeyUsageOID.SERVER_AUTH in (
        of["server"].get_extension_for_class(x509.ExtendedKeyUsage).value
    )


def test_every_file_is_private(home):
    certificates.ensure(home, names=NAMES)

    assert stat.S_IMODE(home.tls.stat().st_mode) == 0o700
    for file in home.tls.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_certificates_that_are_valid_are_kept(home):
    assert certificates.ensure(home, names=NAMES)
    before = {file: file.read_bytes() for file in home.tls.iterdir()}

    assert not certificates.ensure(home, names=NAMES)

    assert {file: file.read_bytes() for file in home.tls.iterdir()} == before


def test_a_certificate_is_replaced_a_month_before_it_expires_by_the_same_authority(home):
    certificates.ensure(home, names=NAMES)
    authority, first = pem(home, "ca"), pem(home)
    month = timedelta(days=certificates.RENEWAL_DAYS)
    end = first.not_valid_after_utc

    assert not certificates.ensure(home, names=NAMES, now=end - month - timedelta(hours=1))
    assert certificates.ensure(home, names=NAMES, now=end - month + timedelta(hours=1))

    assert pem(home, "ca") == authority
    assert pem(home).not_valid_after_utc > end + timedelta(days=300)
    assert certificates.expiry(home) == pem(home).not_valid_after_utc


def test_an_authority_near_its_end_is_replaced_together_with_the_servers_certificate(home):
    certificates.ensure(home, names=NAMES)
    old, first = pem(home, "ca"), pem(home)
    later = old.not_valid_after_utc - timedelta(days=certificates.RENEWAL_DAYS - 1)

    assert certificates.ensure(home, names=NAMES, now=later)

    assert pem(home, "ca").not_valid_after_utc > old.not_valid_after_utc
    pem(home).verify_directly_issued_by(pem(home, "ca"))
    assert pem(home) != first


def test_no_certificate_outlives_its_authority(home):
    certificates.ensure(home, names=NAMES)
    late = pem(home, "ca").not_valid_after_utc - timedelta(days=100)

    certificates.ensure(home, names=NAMES, now=late)

    assert pem(home).not_valid_after_utc <= pem(home, "ca").not_valid_after_utc


def test_another_name_of_the_machine_makes_a_new_certificate(home):
    certificates.ensure(home, names=NAMES)

    assert certificates.ensure(home, names=("localhost", "machine-2", "127.0.0.1", "::1"))


def test_certificates_made_by_a_clock_that_was_ahead_are_replaced(home):
    certificates.ensure(home, names=NAMES, now=datetime.now(UTC) + timedelta(days=900))

    assert certificates.ensure(home, names=NAMES)

    assert pem(home, "ca").not_valid_before_utc <= datetime.now(UTC)


@pytest.mark.parametrize("name", ["ca.key", "ca.pem", "server.pem"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "another"])
def test_a_file_that_is_missing_or_damaged_is_replaced(home, tmp_path, name, damage):
    certificates.ensure(home)
    other = StackDirectory.at(tmp_path / "other")
    certificates.ensure(other)
    file = home.tls / name
    match damage:
        case "missing":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(file.read_bytes()[:100])
        case "another":
            file.write_bytes((other.tls / name).read_bytes())

    assert certificates.ensure(home)

    assert handshake(home) == b"hello"
    assert not certificates.ensure(home)


def test_java_trusts_the_stack_and_what_it_trusted_before(home):
    certificates.ensure(home)

    store = truststore.ensure(home)

    def aliases():
        return truststore.keytool("-list", "-keystore", str(store)).splitlines()

    assert any(line.startswith("sage-stack,") for line in aliases())
    assert len(aliases()) > 50
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    written = store.stat().st_mtime_ns
    assert truststore.ensure(home).stat().st_mtime_ns == written

"""TLS of a client: its context, and why a server's certificate is not accepted.

Clients hide the reason: kafka-python and gRPC say that no server answers. So the handshake is made
here first, and its error becomes a sentence with the name of the setting.
"""

import socket
import ssl
from contextlib import closing, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sage_flink.common.errors import ConfigError, StoreUnavailable

CONNECT_TIMEOUT_S = 5.0
#: X509_V_ERR_*. Source: OpenSSL, X509_STORE_CTX_get_error.
NOT_YET_VALID, EXPIRED, NAME_MISMATCH, ADDRESS_MISMATCH = 9, 10, 62, 64
#: X509_V_FLAG_NO_CHECK_TIME: an expired certificate is only decoded where its chain is verified.
ANY_TIME = 0x200000


@dataclass(frozen=True, slots=True)
class Tls:
    """What a client trusts (``ca``; empty: the machine's authorities), and its own certificate.

    ``where`` names the connection in errors, ``address`` its field with the server's name.
    """

    where: str
    ca: str = ""
    certificate: str = ""
    key: str = ""
    key_password: str = field(default="", repr=False)
    check_names: bool = True
    address: str = "url"

    def context(self) -> ssl.SSLContext:
        """The client's context.

        Raises:
            ConfigError: a file is missing or is no PEM; the message names the setting.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{self.where}: ca: {self.ca} {_reason(error)}") from error
        if not self.check_names:
            context.check_hostname = False
        if self.certificate:
            try:
                # A password in any case: OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.certificate, self.key, lambda: self.key_password)
            except (OSError, ssl.SSLError) as error:
                files = f"{self.certificate} with key {self.key}"
                raise ConfigError(f"{self.where}: certificate: {files} {_reason(error)}") from error
        return context

    def connect(self, host: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
        """An encrypted connection.

        Raises:
            ConfigError: the server's certificate is not accepted, or it wants one of the client.
            StoreUnavailable: the server is away.
        """
        try:
            plain = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
        except OSError as error:
            raise StoreUnavailable(f"{self.where}: {host}:{port}: {error}") from error
        try:
            return context.wrap_socket(plain, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise ConfigError(self._trust_error(host, port, error)) from error
        except TimeoutError as error:
            plain.close()
            raise StoreUnavailable(f"{self.where}: {host}:{port}: no answer to TLS") from error
        except (ssl.SSLError, OSError) as error:
            plain.close()
            raise ConfigError(self.refusal_of(host, port, error)) from error

    def check(self, url: str) -> None:
        """Make one handshake with the server of ``url``, if that is encrypted.

        A server that is away, or behind a proxy, is left to its client.

        Raises:
            ConfigError: as :meth:`connect`.
        """
        parts = urlsplit(url)
        if parts.scheme in {"https", "rediss"} and parts.hostname:
            port = parts.port or (443 if parts.scheme == "https" else 6379)
            with suppress(StoreUnavailable):
                self.connect(parts.hostname, port, self.context()).close()

    def refusal_of(self, host: str, port: int, error: Exception) -> str:
        """The sentence for a handshake that the server ended."""
        reason = getattr(error, "reason", "") or ""
        if "ALERT" in reason or "CERTIFICATE" in reason:
            own = f"it does not accept {self.certificate}" if self.certificate else "it wants one"
            words = reason.replace("_", " ").lower()
            return f"{self.where}: certificate: {host}:{port} refused the client: {own} ({words})"
        setting = "protocol" if self.address == "servers" else self.address
        return f"{self.where}: {setting}: {host}:{port} does not speak TLS: {_reason(error)}"

    def _trust_error(self, host: str, port: int, error: ssl.SSLCertVerificationError) -> str:
        server, code = f"the certificate of {host}:{port}", error.verify_code
        if code in {EXPIRED, NOT_YET_VALID}:
            found = self._certificate(host, port)
            ends = "expired on" if code == EXPIRED else "is not valid before"
            date = found.get("notAfter" if code == EXPIRED else "notBefore", "a date")
            return f"{self.where}: {server} {ends} {date}; renew it there, or set the clock here"
        if code in {NAME_MISMATCH, ADDRESS_MISMATCH}:
            names = [name for _, name in self._certificate(host, port).get("subjectAltName", ())]
            known = f"it is for {', '.join(names)}; use its name" if names else "it has no name"
            return f"{self.where}: {self.address}: {server} is not for {host}: {known}"
        trusted = f"ca {self.ca}" if self.ca else "the authorities of this machine; set ca"
        return f"{self.where}: ca: {server} is not signed by {trusted}: {error.verify_message}"

    def _certificate(self, host: str, port: int) -> dict:  # type: ignore[type-arg]
        """What the server's certificate says, whatever its dates and names; empty if unknown."""
        context = self.context()
        context.check_hostname = False
        context.verify_flags |= ssl.VerifyFlags(ANY_TIME)
        try:
            with (
                closing(socket.create_connection((host, port), CONNECT_TIMEOUT_S)) as plain,
                context.wrap_socket(plain, server_hostname=host) as connection,
            ):
                return dict(connection.getpeercert() or {})
        except (ssl.SSLError, OSError):
            return {}


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        words = (error.reason or str(error)).replace("_", " ").lower()
        return f"cannot be used: {words}"
    return f"cannot be used: {getattr(error, 'strerror', None) or error}"

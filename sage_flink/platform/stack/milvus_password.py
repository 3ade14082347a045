"""Root's password of a secured Milvus, set in place of the one that every Milvus starts with.

By gRPC alone: pymilvus takes seconds to import, and this runs at each start.
"""

import base64
import contextlib

import tenacity

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.stack.stack_directory import StackDirectory, secret

ROOT, DEFAULT_PASSWORD = "root", "Milvus"
LOGIN_TIMEOUT_S, LOGIN_RETRY_S, LOGIN_MAX_S = 10.0, 0.5, 60.0


def set_password(directory: StackDirectory, url: str) -> None:
    """Give root the password of its key file, in place of the one that every Milvus starts with.

    Raises:
        ConfigError: gRPC, which is installed with Milvus's client, is not installed.
        StackError: root has a third password, or the server does not answer.

    Source: milvus.proto, MilvusService.UpdateCredential.
    """
    try:
        import grpc  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ConfigError("Milvus's client is missing: pip install 'sage-flink[milvus]'") from error
    refused = grpc.StatusCode.UNAUTHENTICATED
    # After a kill Milvus waits for the session of its former proxy to expire, up to 30 s.
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, grpc.RpcError) and error.code() != refused
        ),
        wait=tenacity.wait_fixed(LOGIN_RETRY_S),
        stop=tenacity.stop_after_delay(LOGIN_MAX_S),
        reraise=True,
    )
    authority, password = (directory.tls / "ca.pem").read_bytes(), secret(directory, "milvus")
    try:
        retry(_log_in_or_set, authority, url, password)
    except grpc.RpcError as error:
        if error.code() != refused:
            raise StackError(
                f"milvus at {url}: root's password could not be set: {error.details()}; "
                f"see {directory.log('milvus')}"
            ) from error
        raise StackError(
            f"milvus: root at {url} has neither the password in {directory.key('milvus')} nor "
            f"Milvus's own; restore the key, or move {directory.data('milvus')} away to start empty"
        ) from error


def _log_in_or_set(authority: bytes, url: str, password: str) -> None:
    import grpc

    try:
        _call(authority, url, password, "GetVersion")
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAUTHENTICATED:
            raise
        _set(authority, url, password)
        confirm = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(grpc.RpcError),
            wait=tenacity.wait_fixed(LOGIN_RETRY_S),
            stop=tenacity.stop_after_delay(LOGIN_MAX_S),
            reraise=True,
        )
        confirm(_log_in_or_set_again, authority, url, password)


def _log_in_or_set_again(authority: bytes, url: str, password: str) -> None:
    """Log in with the password that Milvus has stored; its proxy may still know the former one.

    It is notified once, and not if the session of a killed Milvus has not expired by then; it keeps
    the former password for good, and takes it for another change to the same.
    """
    import grpc

    try:
        _call(authority, url, password, "GetVersion")
    except grpc.RpcError:
        with contextlib.suppress(grpc.RpcError):
            _set(authority, url, password)
        raise


def _set(authority: bytes, url: str, password: str) -> None:
    change = _update_credential(DEFAULT_PASSWORD, password)
    _call(authority, url, DEFAULT_PASSWORD, "UpdateCredential", change)


def _call(authority: bytes, url: str, password: str, method: str, message: bytes = b"") -> None:
    """Call Milvus as root; what it answers is ignored.

    Raises:
        grpc.RpcError: UNAUTHENTICATED for a wrong password.
    """
    import grpc

    login = base64.b64encode(f"{ROOT}:{password}".encode()).decode()
    credentials = grpc.ssl_channel_credentials(authority)
    options = (("grpc.enable_http_proxy", 0),)
    with grpc.secure_channel(url.removeprefix("https://"), credentials, options) as channel:
        call = channel.unary_unary(f"/milvus.proto.milvus.MilvusService/{method}")
        call(message, timeout=LOGIN_TIMEOUT_S, metadata=(("authorization", login),))


def _update_credential(old: str, new: str) -> bytes:
    """The protobuf message: user, old and new password are the fields 2, 3 and 4."""
    encoded = (base64.b64encode(password.encode()) for password in (old, new))
    fields = enumerate((ROOT.encode(), *encoded), start=2)
    # Wire type 2: length and bytes. All are shorter than 128 bytes, so a length is one byte.
    return b"".join(bytes((number << 3 | 2, len(value))) + value for number, value in fields)

"""A server of a test on a free port of this machine, on a thread of its own."""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def loopback_server(
    handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """The port at which ``handler`` answers while the block runs, over ``tls`` if any."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        # A handshake that fails must not end the server's only accepting thread.
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.daemon_threads = True
    # How often it looks whether to end: half a second by default, at the end of each test.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

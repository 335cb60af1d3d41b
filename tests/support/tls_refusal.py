"""A TLS server that refuses every handshake as OpenSSL does: with an alert, which asyncio's servers do not send."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def refusing_server(tls: ssl.SSLContext) -> Iterator[str]:
    """Serves handshakes on a free port. Yields the URL.

    Args:
        tls: A context that accepts no client.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_serve, args=(listening, tls))
        thread.start()
        try:
            yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listening: socket.socket, tls: ssl.SSLContext) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            with connection:
                _refuse(connection, tls)


def _refuse(connection: socket.socket, tls: ssl.SSLContext) -> None:
    wrapped = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    with wrapped, suppress(OSError):
        try:
            wrapped.do_handshake()
        finally:
            # Without a reset, which could reach the client before the alert.
            plain = socket.socket(fileno=wrapped.detach())
            with plain:
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(65536):
                    pass

"""A server that answers with the bytes it is told, for replies that no HTTP server would give."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType

Reply = bytes | Callable[[socket.socket], None]


def http(status: int, body: bytes | str = b"", /, **headers: str) -> bytes:
    """An answer; ``_`` in a header's name stands for ``-``."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def reset(connection: socket.socket) -> None:
    """Reset the connection instead of answering."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def endless(connection: socket.socket) -> None:
    """Send white space until the client leaves."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(b" " * 65_536)


class RawServer:
    """Answers each connection with the next of ``replies``, the last one over and over, and closes it."""

    def __init__(self, *replies: Reply, tls: ssl.SSLContext | None = None, reads: bool = True) -> None:
        self.replies, self.tls, self.reads = list(replies), tls, reads
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> RawServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                self._answer(connection)
            connection.close()

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        if self.tls:
            connection = self.tls.wrap_socket(connection, server_side=True)
        if self.reads and not self._read_request(connection):
            return
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(reply):
            reply(connection)
        else:
            connection.sendall(reply)
        if self.tls:
            connection.close()

    def _read_request(self, connection: socket.socket) -> bool:
        received = bytearray()
        while b"\r\n\r\n" not in received:
            more = connection.recv(65_536)
            if not more:
                return False
            received += more
        head, _, body = received.partition(b"\r\n\r\n")
        self.heads.append(head.decode("latin-1"))
        lengths = [ln for ln in head.lower().split(b"\r\n") if ln.startswith(b"content-length:")]
        wanted = int(lengths[0].split(b":")[1]) if lengths else 0
        while len(body) < wanted and (more := connection.recv(65_536)):
            body += more
        self.bodies.append(bytes(body))
        return True

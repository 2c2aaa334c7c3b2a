"""
A server that is not the bottleneck: it takes uploads and throws them away, and gives files back.

It speaks enough S3 and enough QuickSync for the clients compared, over HTTP/1.1 with keep-alive, plain or
TLS. Each connection has a process of its own. Every body is counted, and with ``--crc`` summed up, in a log
of one line per body: ``key part bytes crc32``. Plain bodies that are only counted are dropped in the kernel.

``--rate`` and ``--rtt`` imitate a far service: what a connection may carry a second, and how long a round
trip takes (connecting, and each answer).
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import secrets
import select
import signal
import socket
import ssl
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import parse_qs, unquote

T = TypeVar("T")

BUFFER_BYTES = 4 << 20
TLS_READ_BYTES = 256 << 10
READ_BYTES = 64 << 10
SEND_BYTES = 128 << 10
PACE_BYTES = 256 << 10
LIFETIME_SECONDS = 3600
_S3 = "http://s3.amazonaws.com/doc/2006-03-01/"


class Gone(Exception):
    """The client closed its connection."""


class TlsSocket:
    """
    The server's end of a TLS connection.

    Through memory BIOs, as Python's own asks the kernel twice for each record of 16 KiB, which costs a third
    of the time.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._raw = memoryview(bytearray(TLS_READ_BYTES))
        self._read(self._tls.do_handshake)
        self._flush()

    def recv(self, size: int) -> bytes:
        return self._read(lambda: self._tls.read(size))

    def recv_into(self, buffer: memoryview, size: int, flags: int) -> int:
        """At most one record, which is all that OpenSSL gives at once."""
        try:
            return self._tls.read(size, buffer)
        except ssl.SSLWantReadError:
            return self._read(lambda: self._tls.read(size, buffer))

    def sendall(self, data: bytes | memoryview) -> None:
        self._tls.write(data)
        self._flush()

    def close(self) -> None:
        self._sock.close()

    def _read(self, read: Callable[[], T]) -> T:
        while True:
            try:
                return read()
            except ssl.SSLWantReadError:
                self._flush()
                got = self._sock.recv_into(self._raw)
                if not got:
                    raise Gone from None
                self._incoming.write(self._raw[:got])

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())


class Connection:
    """One client, request after request."""

    def __init__(self, sock: socket.socket | TlsSocket, options: argparse.Namespace) -> None:
        self._sock = sock
        self._options = options
        self._tls = isinstance(sock, TlsSocket)
        self._flags = 0 if options.crc or self._tls else socket.MSG_TRUNC | socket.MSG_WAITALL
        self._buffer = memoryview(mmap.mmap(-1, BUFFER_BYTES))
        self._ahead, self._at = b"", 0
        self._round_trip()
        self._free_at = time.monotonic()

    def serve(self) -> None:
        """Answer until the client has enough."""
        while True:
            method, target, headers = self._head()
            path, _, query = target.partition("?")
            self._path, self._query = path, parse_qs(query, keep_blank_values=True)
            self._method, self._headers = method, headers
            if headers.get("expect", "").lower() == "100-continue":
                self._round_trip()
                self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._answer()

    # Reading

    def _head(self) -> tuple[str, str, dict[str, str]]:
        request, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        method, target, _ = request.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        return method, target, {name.lower(): value.strip() for name, _, value in pairs}

    def _until(self, mark: bytes) -> bytes:
        """What comes before a mark."""
        while (end := self._ahead.find(mark, self._at)) < 0:
            self._more()
        found = self._ahead[self._at : end]
        self._at = end + len(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._ahead) - self._at < size:
            self._more()
        self._at += size
        return self._ahead[self._at - size : self._at]

    def _more(self) -> None:
        received = self._sock.recv(READ_BYTES)
        if not received:
            raise Gone
        self._ahead, self._at = self._ahead[self._at :] + received, 0

    def _body(self) -> tuple[int, int]:
        """Read a body and throw it away: its bytes and their CRC-32."""
        if "aws-chunked" in self._headers.get("content-encoding", ""):
            return self._unpack()
        size = int(self._headers["content-length"])
        start = self._exactly(min(size, len(self._ahead) - self._at))
        crc = zlib.crc32(start) if self._options.crc else 0
        left = size - len(start)
        self._pace(len(start))
        most = PACE_BYTES if self._options.rate else len(self._buffer)
        while left:
            got = self._sock.recv_into(self._buffer, min(left, most), self._flags)
            if not got:
                raise Gone
            if self._options.crc:
                crc = zlib.crc32(self._buffer[:got], crc)
            left -= got
            self._pace(got)
        return size, crc

    def _unpack(self) -> tuple[int, int]:
        """An S3 upload with a trailing checksum: chunks and a trailer, cut into HTTP chunks anywhere."""
        total = crc = left = 0
        head = b""
        for block in self._chunks():
            self._pace(len(block))
            while block:
                if left:
                    piece, block = block[:left], block[left:]
                    total, left = total + len(piece), left - len(piece)
                    crc = zlib.crc32(piece, crc) if self._options.crc else 0
                else:
                    line, found, rest = (head + block).lstrip().partition(b"\r\n")
                    head, block = (b"", rest) if found else (head + block, b"")
                    # The last chunk's length is 0; what follows it is no length.
                    left = int(line, 16) if found and b":" not in line else 0
        return total, crc

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._until(b"\r\n"), 16):
            yield self._exactly(size)
            self._until(b"\r\n")
        self._until(b"\r\n")

    # The imitated distance

    def _round_trip(self) -> None:
        if self._options.rtt:
            time.sleep(self._options.rtt)

    def _pace(self, size: int) -> None:
        """Wait until the connection could have carried so many more bytes."""
        if self._options.rate:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 0.05) + size / self._options.rate
            if self._free_at > now:
                time.sleep(self._free_at - now)

    # Answering

    def _answer(self) -> None:
        quicksync = self._path.startswith("/v1/")
        if self._method in ("GET", "HEAD"):
            self._give(quicksync)
        else:
            self._take(quicksync)

    def _take(self, quicksync: bool) -> None:
        if quicksync and self._method == "PUT":
            part = int(self._headers["partnumber"])
            tag = self._counted(self._headers["key"], part)
            self._json({"tag": tag, "partNumber": part})
        elif self._method == "PUT":
            part = int(self._query.get("partNumber", ["1"])[0])
            self._reply(b"", f'ETag: "{self._counted(self._path, part)}"\r\n')
        else:
            size = int(self._headers.get("content-length", 0))
            body = self._exactly(size)
            if quicksync:
                key = json.loads(body).get("key") or secrets.token_hex(8)
                self._json({"uploadId": f"upload-{key}", "fileKey": key})
            elif "uploads" in self._query:
                self._xml("InitiateMultipartUploadResult", f"<UploadId>{secrets.token_hex(8)}</UploadId>")
            else:
                self._xml("CompleteMultipartUploadResult", '<ETag>"x"</ETag>')

    def _counted(self, key: str, part: int) -> str:
        size, crc = self._body()
        os.write(self._options.log_fd, f"{key} {part} {size} {crc}\n".encode())
        return f"{crc:08x}{size:x}"

    def _give(self, quicksync: bool) -> None:
        if self._path.endswith("/session/current"):
            self._json({"id": "benchmark"})
        elif "/buckets/download/" in self._path:
            scheme = "https" if self._tls else "http"
            name = self._path.rpartition("/")[2]
            self._json({"url": f"{scheme}://{self._headers['host']}/files/{name}"})
        elif quicksync:
            name = unquote(self._path.rpartition("/")[2])
            size = os.path.getsize(os.path.join(self._options.files, name))
            self._json({"fileKey": name, "fileName": name, "completed": True, "originalSizeInBytes": size})
        else:
            self._file(os.path.join(self._options.files, os.path.basename(self._path)))

    def _file(self, path: str) -> None:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, end, status, extra = 0, size, "200 OK", ""
            if wanted := self._headers.get("range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, end = int(first), min(int(last) + 1 if last else size, size)
                status, extra = "206 Partial Content", f"Content-Range: bytes {start}-{end - 1}/{size}\r\n"
            extra += 'Accept-Ranges: bytes\r\nETag: "x"\r\nLast-Modified: Sun, 01 Nov 2026 00:00:00 GMT\r\n'
            self._reply(None, extra, status, end - start)
            while start < end and self._method == "GET":
                # Not sendfile, whose small pieces cost both ends more than the copy saves.
                got = os.preadv(file.fileno(), [self._buffer[: min(SEND_BYTES, end - start)]], start)
                self._sock.sendall(self._buffer[:got])
                start += got

    def _json(self, answer: object) -> None:
        self._reply(json.dumps(answer).encode(), "Content-Type: application/json\r\n")

    def _xml(self, root: str, inner: str) -> None:
        names = "<Bucket>b</Bucket><Key>k</Key>"
        self._reply(
            f'<{root} xmlns="{_S3}">{names}{inner}</{root}>'.encode(), "Content-Type: application/xml\r\n"
        )

    def _reply(self, body: bytes | None, extra: str, status: str = "200 OK", size: int = 0) -> None:
        self._round_trip()
        head = f"HTTP/1.1 {status}\r\n{extra}Content-Length: {size if body is None else len(body)}\r\n\r\n"
        self._sock.sendall(head.encode() + (body or b""))


def main() -> None:
    """Serve on a loopback port, which is printed, until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", required=True, help="the folder that downloads come from")
    parser.add_argument("--log", required=True)
    parser.add_argument("--certificate", help="a PEM file with certificate and key: speak TLS")
    parser.add_argument("--crc", action="store_true")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes a second and connection")
    parser.add_argument("--rtt", type=float, default=0.0, help="seconds")
    options = parser.parse_args()
    options.log_fd = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.alarm(LIFETIME_SECONDS)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.killpg(0, signal.SIGTERM)
        sock, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.alarm(LIFETIME_SECONDS)
            _serve(sock, tls, options)
            os._exit(0)
        sock.close()


def _serve(sock: socket.socket, tls: ssl.SSLContext | None, options: argparse.Namespace) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        Connection(TlsSocket(sock, tls) if tls else sock, options).serve()
    except (Gone, OSError):
        pass
    finally:
        sock.close()


if __name__ == "__main__":
    main()

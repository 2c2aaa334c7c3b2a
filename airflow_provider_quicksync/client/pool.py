"""Connections that are as patient while they send as while they wait for an answer."""

from __future__ import annotations

import contextlib
import socket
import weakref
from typing import Any

from requests.adapters import HTTPAdapter


class PatientAdapter(HTTPAdapter):
    """
    Sends bodies under the read timeout.

    urllib3 gives each block of a body only the connect timeout, which slow uplinks that several parts share
    don't meet.
    """

    def __init__(self, *, send_timeout: float, **settings: Any) -> None:
        self._send_timeout = send_timeout
        self._sockets = weakref.WeakValueDictionary[int, Any]()
        super().__init__(**settings)

    def close(self) -> None:
        """Close every idle connection now; urllib3 leaves them to the garbage collector."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                manager.pools[key].close()
        super().close()

    def cut(self) -> None:
        """Shut every connection down: what waits for the network fails at once. Takes no lock."""
        for reference in self._sockets.valuerefs():
            if (found := reference()) is not None:
                with contextlib.suppress(OSError, TypeError):  # closed already, or TLS within TLS
                    # Not a TLS socket's own, which ends TLS first: what was sent then would be in the clear.
                    socket.socket.shutdown(found, socket.SHUT_RDWR)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """The pool of an origin or a proxy, whose connections are of a patient class."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        base = pool.ConnectionCls  # once: another thread may be doing the same
        if not issubclass(base, _Patient):
            kind = type(base.__name__, (_Patient, base), {})
            kind.send_timeout = self._send_timeout  # type: ignore[attr-defined]
            kind.sockets = self._sockets  # type: ignore[attr-defined]
            pool.ConnectionCls = kind
        return pool


class _Patient:
    """Mixed into urllib3's connections: headers go under the connect timeout, the body under another."""

    send_timeout: float
    sockets: weakref.WeakValueDictionary[int, Any]
    sock: Any

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        super().endheaders(*args, **kwargs)  # type: ignore[misc]
        self.sockets[id(self.sock)] = self.sock
        self.sock.settimeout(self.send_timeout)

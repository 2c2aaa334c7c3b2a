"""
Requests to the service and to pre-signed links: one stack, and the only place where bytes meet a socket.

A :class:`Transport` sends one request once. It turns every failure into the error tree, bounds what it
reads, follows no redirect with the bearer, and lets no secret out. When to try again is said in :mod:`.api`.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import unquote_plus, urljoin, urlsplit

import requests
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError

from .checks import check_ca_file, check_secret, check_text, checked_base_url
from .credentials import Credentials
from .errors import DamagedError, QuickSyncError, UsageError
from .failures import no_answer, redact, refusal
from .pool import PatientAdapter

ANSWER_BYTES = 1 << 20
"""The largest answer of an ordinary call; real ones are under 1 KiB."""
LISTING_BYTES = 256 << 20
"""The largest listing: 100,000 files take 20 to 60 MiB."""
LINK_REDIRECTS = 5
_READ_BYTES = 1 << 16
_SECRET_CHARS = 6


@dataclass(frozen=True)
class HttpOptions:
    """
    How to talk to the service.

    :param connect_timeout: seconds to open a connection.
    :param read_timeout: seconds without a byte moving.
    :param verify: verify TLS with the system's CAs (True), a CA file, or not at all (False).
    :param connections: connections kept open, as many as parts go up at the same time.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    verify: bool | str = True
    connections: int = 8

    def __post_init__(self) -> None:
        for name in ("connect_timeout", "read_timeout", "connections"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be more than 0, not {getattr(self, name)!r}")


class Transport:
    """
    Sends requests with the bearer to one base URL, and requests without it to links.

    :param credentials: where the bearer comes from, closed with it; None for what is asked without one.
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials | None,
        api_key: str | None = None,
        options: HttpOptions | None = None,
    ) -> None:
        self.base_url = checked_base_url(base_url)
        self.options = options or HttpOptions()
        self.credentials = credentials
        self._headers = {"Accept": "application/json", "User-Agent": "airflow-provider-quicksync"}
        self._api_key = [api_key.strip()] if api_key else []
        for key in self._api_key:
            check_secret("the API key", key)
            self._headers["X-API-KEY"] = key
        self._session = requests.Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._adapter, self._hurried_adapter = (
            PatientAdapter(
                send_timeout=self.options.read_timeout, pool_maxsize=self.options.connections, max_retries=0
            )
            for _ in range(2)
        )
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, self._adapter)
        self._environment: dict[str, Mapping[str, Any]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    def bearer(self) -> str:
        """The bearer that is sent now; empty where none is."""
        return self.credentials.bearer() if self.credentials else ""

    def interrupt(self) -> None:
        """Let every request on the way fail at once, but for hurried ones."""
        self._adapter.cut()
        if self.credentials:
            self.credentials.interrupt()

    def close(self) -> None:
        """Close every connection."""
        self._hurried_adapter.close()
        self._session.close()
        if self.credentials:
            self.credentials.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        what: str,
        json_body: Any = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = ANSWER_BYTES,
        hurried: bool = False,
        secrets: Sequence[str] = (),
        next_steps: Mapping[int, str] | None = None,
    ) -> Any:
        """
        Send one request with the bearer and read its JSON answer (None where it is empty).

        Where the bearer is refused (401) and there is another, the request is sent once more with that.

        :param what: the request in words, for messages: "initiate the upload of 'a.csv'".
        :param hurried: wait for the answer no longer than for a connection.
        :param secrets: what else no message may show should the service repeat it.
        :param next_steps: by status, what to do where the usual advice is wrong.
        :raises QuickSyncError: anything but a good answer.
        """
        sent = CaseInsensitiveDict[str | bytes](self._headers)
        for name, value in (headers or {}).items():
            check_text(f"{what}: header {name}", value)
            sent[name] = value.encode()
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent["Content-Type"] = "application/json"
        url = self.base_url + path

        def exchange(bearer: str) -> tuple[requests.Response, bytes]:
            if self.credentials:
                check_secret("the bearer", bearer)
                sent["Authorization"] = f"Bearer {bearer}"
            with closing(self._send(method, url, sent, body, what=what, hurried=hurried)) as response:
                if response.is_redirect:
                    hidden = [bearer, *self._api_key, *secrets]
                    target = redact(_origin(_joined(self.base_url, response)), hidden)
                    raise UsageError(
                        f"{what}: {method} {response.url} redirects to {target}, and the bearer is not sent"
                        " on: set the connection's host to where the service is",
                        status=response.status_code,
                    )
                return response, _read(response, max_bytes, what)

        bearer = self.bearer()
        response, answer = exchange(bearer)
        if response.status_code == HTTPStatus.UNAUTHORIZED and self.credentials:
            another = self.credentials.renew(bearer)
            if another is not None:
                bearer = another
                response, answer = exchange(bearer)
        if not 200 <= response.status_code < 300:
            next_steps = {**self._next_steps(), **(next_steps or {})}
            hidden = [bearer, *self._api_key, *secrets]
            raise refusal(response, answer, what, hidden, next_steps=next_steps)
        return _parsed(answer, what)

    def _next_steps(self) -> Mapping[int, str]:
        """What to do about a bearer that is refused, where its source knows better."""
        step = self.credentials and self.credentials.next_step
        return {HTTPStatus.UNAUTHORIZED: step} if step else {}

    @contextmanager
    def open_link(
        self, url: str, *, what: str, start: int = 0, end: int | None = None
    ) -> Iterator[requests.Response]:
        """
        Open a pre-signed link, never with the bearer, from byte ``start`` to ``end`` (exclusive).

        Yields the response, status 200 or 206, to be read with :func:`chunks`. Redirects are followed,
        as they carry no credentials.
        """
        headers = {"User-Agent": self._headers["User-Agent"], "Accept-Encoding": "identity"}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        secrets: list[str] = []
        for _ in range(LINK_REDIRECTS + 1):
            secrets += _link_secrets(url)
            with closing(
                self._send("GET", url, CaseInsensitiveDict(headers), None, what=what, link=True)
            ) as response:
                if response.is_redirect:
                    url = _joined(url, response)
                    continue
                if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                    raise refusal(response, _read(response, ANSWER_BYTES, what), what, secrets, link=True)
                yield response
                return
        raise DamagedError(f"{what}: the link redirects more than {LINK_REDIRECTS} times")

    def _send(
        self,
        method: str,
        url: str,
        headers: CaseInsensitiveDict[Any],
        body: Any,
        *,
        what: str,
        link: bool = False,
        hurried: bool = False,
    ) -> requests.Response:
        """Send one request; the response's body is still to be read, and its URL has lost its query."""
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.headers, prepared.body = method, url, headers, body
        if body is not None or method == "POST":
            headers["Content-Length"] = str(len(body or b""))
        connect, read = self.options.connect_timeout, self.options.read_timeout
        timeout = (connect, min(connect, read) if hurried else read)
        try:
            with _without_queries_in_debug_logs():
                adapter = self._hurried_adapter if hurried else self._session.get_adapter(url)
                response = adapter.send(prepared, stream=True, timeout=timeout, **self._environment_for(url))
        except QuickSyncError:
            raise  # of the body that was being read, some of which are OSErrors too
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            # No cause is chained: it would show the link's query, or the request with its bearer.
            raise no_answer(error, f"{what}: {method} {_shown(url, link)}") from None
        response.url = _shown(url, link)
        return response

    @property
    def verify(self) -> bool | str:
        """How TLS to the base URL is verified, by the options or the environment."""
        found: bool | str = self._environment_for(self.base_url)["verify"]
        return found

    def _environment_for(self, url: str) -> Mapping[str, Any]:
        """Proxies, CA file and client certificate of the environment: looked up once per origin."""
        origin = _origin(url)
        if origin not in self._environment:
            found = self._session.merge_environment_settings(url, {}, True, self.options.verify, None)
            check_ca_file(found["verify"])
            self._environment[origin] = {key: found[key] for key in ("proxies", "verify", "cert")}
        return self._environment[origin]


def chunks(response: requests.Response, size_bytes: int, *, what: str) -> Iterator[bytes]:
    """The body of an open response, piece by piece. :raises UnreachableError: it ended too early."""
    pieces = response.iter_content(size_bytes)
    while True:
        try:
            piece = next(pieces)
        except StopIteration:
            return
        except (requests.RequestException, HTTPError, OSError) as error:
            raise no_answer(error, f"{what}: reading {response.url}") from None
        yield piece


def _read(response: requests.Response, max_bytes: int, what: str) -> bytes:
    """The whole body, at most ``max_bytes`` of it."""
    body = bytearray()
    for chunk in chunks(response, _READ_BYTES, what=what):
        body += chunk
        if len(body) > max_bytes:
            raise DamagedError(
                f"{what}: the answer of {response.url} is larger than {max_bytes:,} bytes: cut off"
            )
    return bytes(body)


def _parsed(answer: bytes, what: str) -> Any:
    """JSON, whatever its content type said."""
    if not answer.strip():
        return None
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        raise DamagedError(
            f"{what}: the answer is not JSON: is the connection's host the API's base URL?"
        ) from None


def _joined(url: str, response: requests.Response) -> str:
    """Where a redirect leads."""
    try:
        return urljoin(url, response.headers["Location"])
    except ValueError:
        return response.headers["Location"]


def _link_secrets(url: str) -> list[str]:
    """The query of a link, and its values, longest first."""
    query = url.partition("?")[2]
    values = [value for pair in query.split("&") for value in (pair.partition("=")[2],)]
    found = {query, *values, *map(unquote_plus, values)}
    return sorted((text for text in found if len(text) >= _SECRET_CHARS), key=len, reverse=True)


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "what is no URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _shown(url: str, link: bool) -> str:
    """A URL for messages: a link without its path and query, which are its secret."""
    return f"{_origin(url)}/…" if link else url


class _QueryFilter(logging.Filter):
    """Takes queries out of urllib3's DEBUG lines while this module sends: a link's query is a secret."""

    active = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(self.active, "on", False) and isinstance(record.args, tuple):
            record.args = tuple(
                arg.partition("?")[0] + "?***" if isinstance(arg, str) and "?" in arg else arg
                for arg in record.args
            )
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_QueryFilter())


@contextmanager
def _without_queries_in_debug_logs() -> Iterator[None]:
    _QueryFilter.active.on = True
    try:
        yield
    finally:
        _QueryFilter.active.on = False

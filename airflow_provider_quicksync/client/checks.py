"""What is refused before anything is sent: values that would split a header, bad URLs, missing CA files."""

from __future__ import annotations

import os
import re
import ssl
from urllib.parse import urlsplit

from .errors import UsageError

_NOT_TEXT = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")
"""Control characters, line and paragraph separators, and halves of characters."""


def checked_base_url(url: str) -> str:
    """
    ``url`` without a trailing slash.

    :raises UsageError: it is not an http(s) URL, or holds credentials, a query or a fragment.
    """
    try:
        parts = urlsplit(url.strip())
        valid = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        valid = False
    if (
        not valid
        or parts.username
        or parts.password
        or parts.query
        or parts.fragment
        or not url.isprintable()
    ):
        raise UsageError(
            "the QuickSync host must be a URL such as https://api.quicksync.me/v1, without user or query"
        )
    return url.strip().rstrip("/")


def check_text(what: str, value: str) -> None:
    """:raises UsageError: ``value`` is empty, has control characters (they split headers), or isn't text."""
    if not value or _NOT_TEXT.search(value):
        raise UsageError(
            f"{what}: {value[:60]!r} is empty, has control characters, or is not text: refused before sending"
        )


def check_secret(what: str, value: str) -> None:
    """:raises UsageError: ``value`` can't be sent in a header; it is not shown."""
    if not value or not value.isascii() or not value.isprintable():
        raise UsageError(f"{what} is empty or has characters that none has: copy it again")


def check_ca_file(verify: bool | str | None) -> None:
    """:raises UsageError: ``verify`` names a file or folder of CA certificates that can't be used."""
    if not isinstance(verify, str):
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if os.path.isdir(verify):
            context.load_verify_locations(capath=verify)
        else:
            context.load_verify_locations(verify)
    except OSError as error:
        raise UsageError(
            f"the CA file {verify!r} (of verify, REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE) can't be used: "
            f"{error.strerror or 'it holds no certificate'}"
        ) from None

"""The link on a task to a page where a person sees the file. It holds no secret."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

DEFAULT_WEB_URL = "https://quicksync.me"
"""Reading: the addresses of files in QS Share are not documented, so its front page, without a session."""
XCOM_KEY = "quicksync_file_link"
_PLACEHOLDERS = ("file_key", "name", "session_id")


class QuickSyncFileLink(BaseOperatorLink):
    """The button "QuickSync file"."""

    name = "QuickSync file"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """What the task left; empty where it hasn't yet."""
        from airflow.providers.common.compat.sdk import XCom

        return XCom.get_value(key=XCOM_KEY, ti_key=ti_key) or ""


def leave_link(context: Context, settings: Mapping[str, Any], file: Mapping[str, Any]) -> None:
    """
    Keep the link to a file, for the button.

    :param settings: the connection's, for its ``web_url``.
    :param file: its receipt or metadata.
    """
    known = {"session_id": settings.get("session_id"), **file}
    values = {key: quote(str(known.get(key) or ""), safe="") for key in _PLACEHOLDERS}
    url = settings.get("web_url") or DEFAULT_WEB_URL
    context["ti"].xcom_push(key=XCOM_KEY, value=url.format_map(values))


def checked_web_url(value: Any) -> str:
    """
    A page's address, with placeholders.

    :raises ValueError: it is no http(s) URL, holds credentials, or has another placeholder.
    """
    if not isinstance(value, str):
        raise TypeError("must be text")
    url = value.strip()
    fields = {field for _, field, _, _ in string.Formatter().parse(url) if field is not None}
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("must be a URL such as https://example.org/{file_key}, without a user")
    if fields - set(_PLACEHOLDERS):
        raise ValueError(f"may hold {{{'}, {'.join(_PLACEHOLDERS)}}}, and no other braces")
    return url

"""
QuickSync's API: one method per endpoint, one retry policy, and per call what a retry may do.

A read and a part can be sent again at any time. An initiate or a complete whose answer was lost may have
taken effect: the service is asked before anything is repeated. A delete that finds nothing after such a
loss has succeeded.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

import requests

from .checks import check_text
from .counts import Counts
from .credentials import Credentials, SessionToken
from .errors import (
    ConflictError,
    DamagedError,
    NotFoundError,
    QuickSyncError,
    StoppedError,
    UsageError,
)
from .http import LISTING_BYTES, HttpOptions, Transport
from .models import FileInfo, Upload, UploadedPart
from .names import QS_SHARE, NameCipher, name_cipher
from .retry import RetryPolicy
from .session_api import SessionCalls
from .transfer.plan import ServiceLimits

log = logging.getLogger(__name__)
T = TypeVar("T")

DEFAULT_BASE_URL = "https://api.quicksync.me/v1"
HUB_PATH = "/hubs/session"
CLEAN_UP = RetryPolicy(max_attempts=2, total_seconds=3.0)
"""A clean-up runs while a task is being killed: there is little time."""
ONCE = RetryPolicy(max_attempts=1)
"""For what is asked between the attempts of another call, whose policy counts and waits."""


class Body(Protocol):
    """A request body of a known length that can be sent again."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


class QuickSyncClient(SessionCalls):
    """
    A session's bucket. Safe to use from several threads; close it, or use it as a context manager.

    :param credentials: the session token, or another source of bearers, which is closed with the client.
    :param base_url: the API's base URL, with its version.
    :param api_key: sent as ``X-API-KEY`` where given.
    :param session_id: the key of encrypted names; asked from the service where it is not given.
    :param cipher: how names are written: ``qs-share``, ``none``, an object, or ``package.module:Class``.
    :param http: timeouts, TLS and connections.
    :param retry: when a call is tried again.
    :param limits: the sizes the service takes.
    """

    def __init__(
        self,
        credentials: Credentials | str,
        *,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str | None = None,
        session_id: str | None = None,
        cipher: str | NameCipher = QS_SHARE,
        http: HttpOptions | None = None,
        retry: RetryPolicy | None = None,
        limits: ServiceLimits | None = None,
    ) -> None:
        if isinstance(credentials, str):
            credentials = SessionToken(credentials)
        self.credentials = credentials
        self.counts = Counts()
        self.retry = replace(retry or RetryPolicy(), on_retry=self.counts.retried)
        self.limits = limits or ServiceLimits()
        self.known_session_id = session_id or credentials.session_id
        self._cipher = name_cipher(cipher)
        self._transport = Transport(base_url, credentials, api_key, http)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r}, session_id={self.known_session_id!r})"

    def __enter__(self) -> QuickSyncClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def interrupt(self) -> None:
        """Let every request on the way fail at once, but for clean-ups; safe in a signal handler."""
        self._transport.interrupt()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @property
    def verify(self) -> bool | str:
        """How TLS is verified: see :class:`.http.HttpOptions`; or a CA file or folder of the environment."""
        return self._transport.verify

    @property
    def base_url(self) -> str:
        """The API's base URL."""
        return self._transport.base_url

    # Files

    def list_files(self, *, read_names: bool = True, hurried: bool = False) -> list[FileInfo]:
        """
        Every file of the session, unfinished ones too (``GET /buckets``).

        :param read_names: decrypt their names; otherwise :meth:`read_name` does it for one.
        :param hurried: for a clean-up.
        """
        files = self._list_files(CLEAN_UP if hurried else self.retry, hurried=hurried)
        return [self.read_name(file) for file in files] if read_names else files

    def _list_files(self, policy: RetryPolicy, *, hurried: bool = False) -> list[FileInfo]:
        what = "list the files"
        answer = policy.run(
            lambda: self._transport.call(
                "GET", "/buckets", what=what, max_bytes=LISTING_BYTES, hurried=hurried
            )
        )
        if not isinstance(answer, list):
            raise DamagedError(f"{what}: the service answered {type(answer).__name__}, a list was expected")
        return [FileInfo.from_json(item, where=what) for item in answer]

    def get_file(self, file_key: str) -> FileInfo:
        """One file (``GET /buckets/file/{fileId}``). :raises NotFoundError: there is none with this key."""
        return self._look_up(file_key, self.retry)

    def _look_up(self, file_key: str, policy: RetryPolicy) -> FileInfo:
        what = f"look up file {file_key}"
        path = f"/buckets/file/{_path(file_key)}"
        answer = policy.run(lambda: self._transport.call("GET", path, what=what))
        return self.read_name(FileInfo.from_json(answer, where=what))

    def get_download_url(self, file_key: str) -> str:
        """A temporary link to a completed file (``GET /buckets/download/{fileId}``). It is a secret."""
        what = f"get the link of file {file_key}"
        path = f"/buckets/download/{_path(file_key)}"
        answer = self._retried(lambda: self._transport.call("GET", path, what=what))
        url = answer.get("url") if isinstance(answer, dict) else None
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            raise DamagedError(f"{what}: the service answered without a link that can be opened")
        return url

    def delete_file(self, file_key: str) -> None:
        """
        Delete a file, or an unfinished upload (``DELETE /buckets/{fileId}``).

        :raises NotFoundError: there is none with this key.
        """
        self._delete(file_key, self.retry)

    def remove_unfinished(self, file_key: str) -> None:
        """Delete an upload that was begun, in a hurry; fine when it is gone already."""
        with suppress(NotFoundError):
            self._delete(file_key, CLEAN_UP, hurried=True)

    def open_link(
        self, url: str, *, what: str, start: int = 0, end: int | None = None
    ) -> AbstractContextManager[requests.Response]:
        """Open a link of :meth:`get_download_url`, once; see :meth:`.http.Transport.open_link`."""
        return self._transport.open_link(url, what=what, start=start, end=end)

    def negotiate_hub(self) -> str:
        """
        Where to listen to the session's events: a WebSocket's URL, good for one connection. It is a secret.

        :raises UsageError: the service sends its listeners elsewhere, where the bearer must not go.
        """
        what = "negotiate with the session hub"
        answer = self._retried(
            lambda: self._transport.call("POST", f"{HUB_PATH}/negotiate?negotiateVersion=1", what=what)
        )
        ticket = answer.get("connectionToken") if isinstance(answer, dict) else None
        if not isinstance(ticket, str) or not ticket:
            raise UsageError(f"{what}: the service gives no connection of its own")
        query = urlencode({"id": ticket, "access_token": self._transport.bearer()})
        return f"ws{self.base_url.removeprefix('http')}{HUB_PATH}?{query}"

    # Uploads

    def initiate_upload(
        self,
        name: str,
        *,
        size_bytes: int,
        total_parts: int,
        raw_name: str | None = None,
        stop: threading.Event | None = None,
    ) -> Upload:
        """
        Begin an upload (``POST /buckets``).

        Where an answer was lost, the upload that was begun is looked for by its raw name and removed
        before another one is begun.

        :param raw_name: what :meth:`write_name` made of the name, where that was done already.
        """
        what = f"initiate the upload of {name!r}"
        raw_name = raw_name or self.write_name(name)
        body = {"totalParts": total_parts, "encryptedName": raw_name, "originalSizeInBytes": size_bytes}
        lost = may_come = False

        def attempt() -> Upload:
            nonlocal lost
            lost_before, lost = lost, True  # an interrupt may come before the answer
            try:
                answer = self._transport.call("POST", "/buckets", what=what, json_body=body)
                upload = Upload.from_json(answer, where=what)
            except QuickSyncError as error:
                lost = lost_before or _may_have_taken_effect(error)
                raise
            lost = lost_before
            return upload

        def before_retry(error: QuickSyncError) -> None:
            nonlocal lost, may_come
            may_come = may_come or (lost and error.status is None)
            lost = lost and not self._remove_lost_uploads(name, raw_name)

        try:
            upload = self.retry.run(attempt, stop=stop, before_retry=before_retry)
        except BaseException:
            if lost:
                self._remove_lost_uploads(name, raw_name)
            raise
        if lost or may_come:  # a request without an answer may have been carried out since
            self._remove_lost_uploads(name, raw_name, but=upload.file_key)
        return upload

    def put_part(
        self, upload: Upload, part_number: int, body: Body | bytes, *, stop: threading.Event | None = None
    ) -> UploadedPart:
        """Send one part (``PUT /buckets``); sending it again replaces it."""
        what = f"upload part {part_number} of file {upload.file_key}"
        headers = {
            "partNumber": str(part_number),
            "key": upload.file_key,
            "uploadId": upload.upload_id,
            "Content-Type": "application/octet-stream",
        }
        # A body of length 0 that isn't bytes would be sent chunked.
        sent = body if len(body) else b""

        def attempt() -> UploadedPart:
            answer = self._transport.call("PUT", "/buckets", what=what, headers=headers, body=sent)
            return UploadedPart.from_json(answer, part_number=part_number, where=what)

        part = self.retry.run(attempt, stop=stop)
        self.counts.sent(len(body))
        return part

    def complete_upload(
        self,
        upload: Upload,
        tags: Sequence[str],
        *,
        maybe_done: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        """
        Finish an upload (``POST /buckets/complete``); ``tags`` in the order of the parts.

        Where an answer was lost, or can't be read, the file's metadata decides. A repetition that finds no
        upload any more (404, 409) while the file is there means that the first one took effect.

        :param maybe_done: an earlier attempt may have completed it.
        """
        key = upload.file_key
        what = f"complete the upload of file {key}"
        body = {"tags": list(tags), "key": key}
        lost = maybe_done

        def attempt() -> bool:
            nonlocal lost
            try:
                answer = self._transport.call("POST", "/buckets/complete", what=what, json_body=body)
                _check_completed(answer, key, what)
            except (NotFoundError, ConflictError):
                if lost and self._found(key):
                    return True
                raise
            except QuickSyncError as error:
                lost = lost or _may_have_taken_effect(error)
                raise
            return True

        def before_retry(error: QuickSyncError) -> bool | None:
            file = self._found(key) if lost else None
            return True if file and file.completed else None

        try:
            self.retry.run(attempt, stop=stop, before_retry=before_retry)
        except StoppedError:
            raise
        except QuickSyncError as error:
            with suppress(QuickSyncError):
                if before_retry(error):
                    return
            raise

    # Names

    def write_name(self, name: str) -> str:
        """
        The raw name to send for ``name``.

        :raises UsageError: an empty name, one with control characters, or no session id to encrypt it with.
        """
        check_text("the file's name", name)
        if self._cipher.needs_session and not self._session_id():
            raise UsageError(
                f"cannot encrypt the name {name!r}: the service tells no session id; set session_id on the"
                " connection, or name_cipher to none"
            )
        return self._cipher.encrypt(name, self.known_session_id or "")

    @property
    def names_are_unique(self) -> bool:
        """Whether a raw name identifies one upload."""
        return self._cipher.unique

    def read_name(self, file: FileInfo) -> FileInfo:
        """The file with its readable name, or as it is."""
        if not file.raw_name or (self._cipher.needs_session and not self._session_id()):
            return file
        try:
            name = self._cipher.decrypt(file.raw_name, self.known_session_id or "")
        except ValueError:
            return file
        return file if name == file.raw_name else replace(file, name=name)

    def _session_id(self) -> str:
        """The session's id; empty where nobody tells it."""
        if self.known_session_id is None:
            try:
                told = self.current_session().session_id
            except NotFoundError:
                told = None
            self.known_session_id = told or self.credentials.session_id or ""
        return self.known_session_id

    # How calls are repeated

    def _retried(self, attempt: Callable[[], T]) -> T:
        return self.retry.run(attempt)

    def _delete(self, file_key: str, policy: RetryPolicy, *, hurried: bool = False) -> None:
        what, path = f"delete file {file_key}", f"/buckets/{_path(file_key)}"
        lost = False

        def attempt() -> None:
            try:
                self._transport.call("DELETE", path, what=what, hurried=hurried)
            except NotFoundError:
                if not lost:
                    raise
            except DamagedError:
                if self._found(file_key):  # nothing in the answer is needed
                    raise

        def before_retry(error: QuickSyncError) -> None:
            nonlocal lost
            lost = lost or error.maybe_done

        policy.run(attempt, before_retry=before_retry)

    def _found(self, file_key: str) -> FileInfo | None:
        try:
            return self._look_up(file_key, ONCE)
        except NotFoundError:
            return None

    def _remove_lost_uploads(self, name: str, raw_name: str, *, but: str | None = None) -> bool:
        """
        Remove what an unanswered initiate may have left, where the raw name proves that it is ours.

        :return: whether nothing is left for sure.
        """
        if not self._cipher.unique:
            log.warning("initiating %r may have left an unfinished upload of that name behind", name)
            return True
        try:
            for file in self._list_files(CLEAN_UP, hurried=True):
                if file.raw_name == raw_name and file.file_key != but:
                    self.remove_unfinished(file.file_key)
                    log.info(
                        "removed the upload of %r whose initiation was not answered (%s)", name, file.file_key
                    )
        except QuickSyncError as error:
            log.warning("initiating %r may have left an unfinished upload behind: %s", name, error)
            return False
        return True


def _may_have_taken_effect(error: QuickSyncError) -> bool:
    return error.maybe_done or isinstance(error, DamagedError)


def _check_completed(answer: object, file_key: str, what: str) -> None:
    """Nothing in the answer to a complete is needed any more; only one about something else is wrong."""
    said = answer.get("fileKey") if isinstance(answer, dict) else answer
    if said not in (None, file_key):
        raise DamagedError(f"{what}: the service answered about something else")


def _path(file_key: str) -> str:
    """A file key as one path segment. :raises UsageError: one that would reach another endpoint."""
    if not isinstance(file_key, str) or file_key in ("", ".", ".."):
        raise UsageError(f"{file_key!r} is not a file key")
    check_text("file key", file_key)
    return quote(file_key, safe="")

"""
What a next attempt of an upload needs, kept in a key-value store while the upload runs.

Before anything is sent, a digest of each file's raw name is written down. Raw names are unique, so whatever
a crash leaves on the service can be found by it, and is either the finished file or removed. Uploads of
several parts also keep their upload id and the tags of their parts.

Airflow's task state store takes 65,535 bytes a value, so what grows is kept in pages of items of a known
size. Each file that is begun gets an id of its own, and what bears another id doesn't count: pages may be
lost, or be older than others. Nothing written is a secret. A store that fails never fails the upload: a
warning is logged, and a next attempt may start again.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from airflow_provider_quicksync.client.errors import SourceChangedError, StoppedError, is_hopeless
from airflow_provider_quicksync.client.models import FileInfo, Upload
from airflow_provider_quicksync.client.transfer.plan import Plan
from airflow_provider_quicksync.client.transfer.sources import (
    DataSource,
    Source,
    SpooledSource,
    open_unchanged,
    read_exactly,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

WRITE_SECONDS = 1.0
PAUSE_SECONDS = 30.0
"""How long a store that has failed is left alone."""
ITEMS_A_PAGE = 200
"""65,535 bytes leave 327 for an item: a file's name and source are kept as digests, and take some 120; tags
and file keys are short."""
UPLOADS_A_PAGE = 100
"""Upload ids may be longer."""
_PREFIX = "quicksync."
_SAMPLE_BYTES = 64 << 10


class StateStore(Protocol):
    """Airflow's ``context["task_state_store"]``, or anything like it."""

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default."""

    def set(self, key: str, value: Any) -> None:
        """Keep a JSON value."""

    def delete(self, key: str) -> None:
        """Forget it; fine when there is none."""


@dataclass
class FileState:
    """
    How far one file is. ``upload`` and ``plan`` are those under which ``tags`` were given.

    :param id: of this beginning of the file; what was kept under another one is of another beginning.
    :param raw_name: what this attempt begins it under; empty where it goes on.
    :param raw_digest: a digest of the raw name that it was begun under.
    """

    number: int
    mark: str | None = None
    id: str = ""
    raw_name: str = ""
    raw_digest: str = ""
    upload: Upload | None = None
    plan: Plan | None = None
    tags: dict[int, str] = field(default_factory=dict)
    file_key: str | None = None
    sha256: str | None = None


class Checkpoint:
    """
    The resume state of one task's files.

    :param store: where it is kept.
    :param last_attempt: whether no attempt follows a failure, so that nothing is to be kept for one.
    """

    def __init__(self, store: StateStore, *, last_attempt: bool = False) -> None:
        self._store = store
        self._last_attempt = last_attempt
        self._attempt, self._earlier_attempt = secrets.token_hex(8), ""
        self._lock = threading.Lock()
        self._pages: dict[str, dict[str, Any]] = {}
        self._unwritten: dict[str, None] = {}  # in the order of what changed
        self._written_at, self._trusted_from = time.monotonic(), 0.0
        self._has_written = self._has_warned = False
        self.superseded: set[str] = set()
        """Digests of the raw names under which files were begun that are sent again."""
        self.next_number = 0
        """Of the next file that is not known."""
        self.orphans: list[str] = []
        """File keys of uploads that were begun, and whose file nothing is known of any more."""

    @cached_property
    def known(self) -> dict[str, FileState]:
        """What an earlier attempt kept, by :func:`digest` of the files' names; it is this attempt's now."""
        owner = self._read("owner")
        self._earlier_attempt = str(owner.get("attempt", ""))
        states = {}
        for name, item in self._read_items("intents", count=owner.get("files")):
            if state := _parsed(_state, item):
                states[name] = state
        noted: int = owner["files"] if isinstance(owner.get("files"), int) else 0
        self.next_number = max([noted, *(state.number + 1 for state in states.values())])
        self._load_uploads({str(state.number): state for state in states.values()})
        if session := self._read("session"):
            self._pages["session"] = session
        self._put("owner", attempt=self._attempt, files=self.next_number)
        self.write()
        return states

    def others(self, files: Sequence[FileInfo], *, names_are_unique: bool) -> list[FileInfo]:
        """The files that no earlier attempt made, finished or not."""
        states = self.known.values()
        keys = {state.file_key for state in states} | {s.upload.file_key for s in states if s.upload}
        names = {state.raw_digest for state in states} if names_are_unique else set()
        return [f for f in files if f.file_key not in keys and digest(f.raw_name or "") not in names]

    def _load_uploads(self, states: dict[str, FileState]) -> None:
        for number, item in self._read_items("uploads", count=self.next_number, a_page=UPLOADS_A_PAGE):
            if kept := _parsed(_upload, item):
                id_, upload, plan = kept
                if number in states and states[number].id == id_:
                    states[number].upload, states[number].plan = upload, plan
                else:
                    self.orphans.append(upload.file_key)
        for number, item in self._read_items("done", count=self.next_number):
            if (done := _parsed(_done, item)) and number in states and states[number].id == done[2]:
                states[number].file_key, states[number].sha256 = done[:2]
        for state in states.values():
            if state.upload and state.plan and state.file_key is None:
                tags = self._read_items(
                    f"tags.{state.number}",
                    count=state.plan.total_parts + 1,
                    upload_id=state.upload.upload_id,
                )
                state.tags = {
                    int(part): tag for part, tag in tags if part.isdecimal() and isinstance(tag, str)
                }

    @property
    def session_id(self) -> str | None:
        """The session that an earlier attempt created."""
        return self._pages.get("session", {}).get("session_id") if self.known is not None else None

    def entered(self, session_id: str | None) -> None:
        """A session was created, or found again; None: it is of no use any more."""
        self._put("session", session_id=session_id)
        self.write()

    # Notes; written by :meth:`tick`, about once a second, or at once by :meth:`write`

    def intend(self, name: str, state: FileState, raw_name: str) -> None:
        """A file is about to be sent from its start; what was known of it doesn't count any more."""
        if state.raw_digest:
            self.superseded.add(state.raw_digest)
        state.id, state.raw_name, state.raw_digest = secrets.token_hex(4), raw_name, digest(raw_name)
        state.upload = state.plan = state.file_key = state.sha256 = None
        state.tags = {}
        item = [state.number, state.id, state.raw_digest, state.mark]
        self._put(f"intents.{state.number // ITEMS_A_PAGE}", **{digest(name): item})
        if state.number >= self._pages.get("owner", {}).get("files", 0):
            self._put("owner", files=state.number + 1)

    def started(self, state: FileState, upload: Upload, plan: Plan) -> None:
        """An upload of several parts was begun."""
        state.upload, state.plan = upload, plan
        item = [state.id, upload.upload_id, upload.file_key, *astuple(plan)]
        self._put(_uploads_page(state), **{str(state.number): item})
        self.write()

    def sent(self, state: FileState, part_number: int, tag: str) -> None:
        """The service has a part."""
        if state.upload:
            page = f"tags.{state.number}.{part_number // ITEMS_A_PAGE}"
            self._put(page, upload_id=state.upload.upload_id, **{str(part_number): tag})

    def done(self, state: FileState, file_key: str, sha256: str | None) -> None:
        """The service has the whole file."""
        item = [file_key, sha256, state.id]
        self._put(f"done.{state.number // ITEMS_A_PAGE}", **{str(state.number): item})
        with self._lock:
            for page in [page for page in self._pages if page.startswith(f"tags.{state.number}.")]:
                del self._pages[page]
                self._unwritten[page] = None

    def tick(self) -> None:
        """
        Write what is new, about once a second; in one thread only.

        :raises StoppedError: another attempt has taken over: this one's task was given up.
        """
        if time.monotonic() - self._written_at < WRITE_SECONDS:
            return
        if self._owner_is_another():
            raise StoppedError("another attempt of this task has taken over")
        self._written_at = time.monotonic()
        self.write()

    # How it ends

    def keeps(self, state: FileState, error: BaseException, *, maybe_complete: bool) -> bool:
        """
        Whether an upload that failed stays on the service for another attempt.

        It doesn't where no attempt follows or could go on with it. Where another one has taken over, what
        that one may go on with, or may have found complete, is left to it.
        """
        if state.upload is None and not maybe_complete:
            return False
        self._trusted_from = 0.0
        self.write()
        if self.taken_over():
            kept = _parsed(_upload, self._read(_uploads_page(state)).get(str(state.number)))
            return kept is None or state.upload is None or kept[1] == state.upload
        if state.upload is None or _uploads_page(state) in self._unwritten:
            return False
        return not (isinstance(error, SourceChangedError) or self.is_over(error))

    def is_over(self, error: BaseException) -> bool:
        """Whether no attempt follows that could make use of what was kept."""
        return self._last_attempt or isinstance(error, StoppedError | KeyboardInterrupt) or is_hopeless(error)

    def taken_over(self) -> bool:
        """Whether another attempt goes on with what this one began; also where the store doesn't tell."""
        owner = self._read("owner").get("attempt")
        if owner is not None:
            return self._is_another(owner)
        return self._has_written and not any(self._read(key) for key in list(self._pages))

    def clear(self, *, but_done: bool = False) -> None:
        """
        Forget everything: nothing is left to resume.

        :param but_done: keep what tells which files are done, if any are.
        """
        self._trusted_from = 0.0
        if self.known is not None and not self.taken_over():
            but_done = but_done and any(key.startswith("done.") for key in self._pages)
            for key in self._pages:
                if not (but_done and key.startswith(("intents.", "done.", "owner"))):
                    self._call("delete", key)
        self._pages.clear()
        self._unwritten.clear()

    def _owner_is_another(self) -> bool:
        return self._is_another(self._read("owner").get("attempt"))

    def _is_another(self, owner: object) -> bool:
        return owner is not None and str(owner) not in (self._attempt, self._earlier_attempt)

    # The store

    def write(self) -> None:
        """Write every page that has changed, unless another attempt has taken over."""
        if not self._unwritten or self.taken_over():
            return
        with self._lock:
            pages = {key: dict(self._pages.get(key, {})) for key in self._unwritten}
            self._unwritten.clear()
        for key, value in pages.items():
            if self._call("set", key, value) if value else self._call("delete", key):
                self._has_written = True
            else:
                with self._lock:
                    self._unwritten[key] = None

    def _put(self, page: str, **items: Any) -> None:
        """Add to a page; to an empty one, where it is of another upload."""
        with self._lock:
            kept = self._pages.setdefault(page, {})
            if "upload_id" in items and kept.get("upload_id") != items["upload_id"]:
                kept.clear()
            kept.update(items)
            self._unwritten[page] = None

    def _read_items(
        self, key: str, *, count: object, a_page: int = ITEMS_A_PAGE, upload_id: str | None = None
    ) -> Iterator[tuple[str, Any]]:
        """The items of all pages of a kind; where nobody knows how many there are, up to an empty page."""
        pages = -(-count // a_page) if isinstance(count, int) else None
        number = 0
        while number != pages:
            page = self._read(f"{key}.{number}")
            if not page and pages is None:
                return
            number += 1
            if page and page.get("upload_id") == upload_id:
                self._pages[f"{key}.{number - 1}"] = page
                yield from ((name, item) for name, item in page.items() if name != "upload_id")

    def _read(self, key: str) -> dict[str, Any]:
        found: list[Any] = []
        self._call("get", key, into=found)
        return dict(found[0]) if found and isinstance(found[0], dict) else {}

    def _call(self, method: str, key: str, *value: Any, into: list[Any] | None = None) -> bool:
        """Call the store; one that has failed is left alone for a while, and never fails the upload."""
        if time.monotonic() < self._trusted_from:
            return False
        try:
            result = getattr(self._store, method)(_PREFIX + key, *value)
        except Exception as error:  # whatever a state backend raises
            self._trusted_from = time.monotonic() + PAUSE_SECONDS
            if not self._has_warned:
                self._has_warned = True
                log.warning(
                    "resume state can't be kept or read (%s): a retry may start again", type(error).__name__
                )
            return False
        if into is not None:
            into.append(result)
        return True


def digest(text: str) -> str:
    """A short text that stands for another one."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _state(item: list[Any]) -> FileState:
    number, id_, raw_digest, mark = item
    return FileState(int(number), mark, str(id_), raw_digest=str(raw_digest))


def _done(item: list[Any]) -> tuple[str, str | None, str]:
    file_key, sha256, id_ = item
    return str(file_key), sha256, str(id_)


def _upload(item: list[Any]) -> tuple[str, Upload, Plan]:
    id_, upload_id, file_key, *plan = item
    size_bytes, part_size_bytes, total_parts = map(int, plan)
    return str(id_), Upload(str(upload_id), str(file_key)), Plan(size_bytes, part_size_bytes, total_parts)


def _uploads_page(state: FileState) -> str:
    return f"uploads.{state.number // UPLOADS_A_PAGE}"


def _parsed(parse: Callable[[Any], T], kept: Any) -> T | None:
    """What was kept, or None where it isn't what this version keeps."""
    try:
        return parse(kept)
    except (TypeError, ValueError, KeyError):
        return None


def content_mark(source: Source) -> str | None:
    """
    A text that another attempt, maybe on another worker, compares before it goes on with a source.

    Made of the fingerprint and of what is at both ends, where reading that costs nothing; None for a source
    that can't be recognised.

    :raises SourceChangedError: it is not what it was when it was chosen, or gone.
    """
    if isinstance(source, SpooledSource) or (source.remote and source.fingerprint.endswith("-")):
        return None
    content = hashlib.sha256(source.fingerprint.encode())
    if not (source.remote or isinstance(source, DataSource)):
        length = min(_SAMPLE_BYTES, source.size_bytes)
        buffer = memoryview(bytearray(length))
        open_unchanged(source)
        try:
            for offset in sorted({0, source.size_bytes - length}):
                read_exactly(source, offset, buffer)
                content.update(buffer)
        finally:
            source.close()
    return f"{source.size_bytes}-{content.hexdigest()[:32]}"

"""
What a next attempt of an upload needs, kept in a key-value store while the upload runs.

Before anything is sent, each file's raw name is written down. It is unique, so whatever a crash leaves on
the service can be found by it, and is either the finished file or removed. Uploads of several parts also
keep their upload id and the tags of their parts.

Airflow's task state store takes 65,535 bytes a value, so what grows is kept in pages. Nothing written is
a secret. A store that fails never fails the upload: a warning is logged, and a next attempt may start again.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from airflow_provider_quicksync.client.errors import SourceChangedError, StoppedError, is_hopeless
from airflow_provider_quicksync.client.models import FileInfo, Upload
from airflow_provider_quicksync.client.transfer.plan import Plan
from airflow_provider_quicksync.client.transfer.sources import Source, SpooledSource, read_exactly

log = logging.getLogger(__name__)

WRITE_SECONDS = 1.0
PAUSE_SECONDS = 30.0
"""How long a store that has failed is left alone."""
INTENTS_A_PAGE = 60
"""An intent takes some 300 bytes, and 1,000 with a very long name."""
ITEMS_A_PAGE = 400
"""A tag or a finished file takes some 100 bytes."""
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
    """How far one file is. ``upload`` and ``plan`` are those under which ``tags`` were given."""

    number: int
    raw_name: str
    mark: str | None
    upload: Upload | None = None
    plan: Plan | None = None
    tags: dict[int, str] = field(default_factory=dict)
    file_key: str | None = None
    sha256: str | None = None

    def forget_upload(self) -> None:
        """Start from the first part."""
        self.upload = self.plan = self.file_key = self.sha256 = None
        self.tags = {}


class Checkpoint:
    """
    The resume state of one task's files.

    :param store: where it is kept.
    :param last_attempt: whether no attempt follows a failure, so that nothing is to be kept for one.
    """

    def __init__(self, store: StateStore, *, last_attempt: bool = False) -> None:
        self._store = store
        self._last_attempt = last_attempt
        self._attempt = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._pages: dict[str, dict[str, Any]] = {}
        self._unwritten: set[str] = set()
        self._written_at = self._trusted_from = 0.0

    @cached_property
    def known(self) -> dict[str, FileState]:
        """What an earlier attempt kept, by the names of the files; from now on it is this attempt's."""
        states = {}
        for page in self._read_pages("intents"):
            for name, (number, raw_name, mark) in page.items():
                states[name] = state = FileState(int(number), raw_name, mark)
                self._load_upload(state)
        for page in self._read_pages("done"):
            for state in states.values():
                state.file_key, state.sha256 = page.get(str(state.number), (state.file_key, state.sha256))
        self._put("owner", attempt=self._attempt)
        self.write()
        return states

    def others(self, files: Sequence[FileInfo], *, names_are_unique: bool) -> list[FileInfo]:
        """The files that no earlier attempt made, finished or not."""
        states = self.known.values()
        keys = {state.file_key for state in states} | {s.upload.file_key for s in states if s.upload}
        names = {state.raw_name for state in states} if names_are_unique else set()
        return [file for file in files if file.file_key not in keys and file.raw_name not in names]

    def _load_upload(self, state: FileState) -> None:
        kept = self._read(f"upload.{state.number}")
        if not kept:
            return
        self._pages[f"upload.{state.number}"] = kept
        state.upload = Upload(kept["upload_id"], kept["file_key"])
        state.plan = Plan(kept["size_bytes"], kept["part_size_bytes"], kept["total_parts"])
        for page in self._read_pages(f"tags.{state.number}"):
            if page.pop("upload_id", None) == state.upload.upload_id:
                state.tags |= {int(part): tag for part, tag in page.items()}

    # Notes; written by :meth:`tick`, about once a second, or at once by :meth:`write`

    def intend(self, name: str, state: FileState) -> None:
        """A file is about to be sent under its raw name."""
        self._put(
            f"intents.{state.number // INTENTS_A_PAGE}", **{name: [state.number, state.raw_name, state.mark]}
        )

    def started(self, state: FileState, upload: Upload, plan: Plan) -> None:
        """An upload of several parts was begun."""
        state.upload, state.plan = upload, plan
        self._put(
            f"upload.{state.number}",
            upload_id=upload.upload_id,
            file_key=upload.file_key,
            size_bytes=plan.size_bytes,
            part_size_bytes=plan.part_size_bytes,
            total_parts=plan.total_parts,
        )
        self.write()

    def sent(self, state: FileState, part_number: int, tag: str) -> None:
        """The service has a part."""
        if state.upload:
            page = f"tags.{state.number}.{part_number // ITEMS_A_PAGE}"
            if self._pages.get(page, {}).get("upload_id") != state.upload.upload_id:
                with self._lock:
                    self._pages[page] = {"upload_id": state.upload.upload_id}
            self._put(page, **{str(part_number): tag})

    def done(self, state: FileState, file_key: str, sha256: str | None) -> None:
        """The service has the whole file."""
        self._put(f"done.{state.number // ITEMS_A_PAGE}", **{str(state.number): [file_key, sha256]})

    def tick(self) -> None:
        """Write what is new, about once a second; in one thread only."""
        if time.monotonic() - self._written_at >= WRITE_SECONDS:
            self.write()

    # How it ends

    def keeps(self, state: FileState, error: BaseException) -> bool:
        """
        Whether an upload that failed stays on the service for the next attempt.

        It doesn't where no attempt follows or could go on with it. Where another attempt has taken over,
        and with the same upload, it is left to that one.
        """
        if state.upload is None:
            return False
        self.write()
        if not self._is_mine():
            kept = self._read(f"upload.{state.number}")
            return not kept or kept.get("upload_id") == state.upload.upload_id
        hopeless = isinstance(error, StoppedError | SourceChangedError | KeyboardInterrupt) or is_hopeless(
            error
        )
        return not (hopeless or self._last_attempt)

    def clear(self) -> None:
        """Forget everything: nothing is left to resume."""
        if self.known is not None and self._is_mine():
            for key in self._pages:
                self._call("delete", key)
        self._pages.clear()
        self._unwritten.clear()

    def _is_mine(self) -> bool:
        """Whether no other attempt has taken over; not where the store can't tell."""
        return self._read("owner").get("attempt") == self._attempt

    # The store

    def write(self) -> None:
        """Write every page that has changed."""
        with self._lock:
            pages = {key: dict(self._pages[key]) for key in self._unwritten}
            self._unwritten.clear()
        for key, value in pages.items():
            if not self._call("set", key, value):
                self._unwritten.add(key)
        self._written_at = time.monotonic()

    def _put(self, key: str, **items: Any) -> None:
        with self._lock:
            self._pages.setdefault(key, {}).update(items)
            self._unwritten.add(key)

    def _read_pages(self, key: str) -> Iterator[dict[str, Any]]:
        number = 0
        while page := self._read(f"{key}.{number}"):
            self._pages[f"{key}.{number}"] = page
            yield dict(page)
            number += 1

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
            log.warning("resume state can't be kept, so a retry may start again: %s", type(error).__name__)
            self._trusted_from = time.monotonic() + PAUSE_SECONDS
            return False
        if into is not None:
            into.append(result)
        return True


def content_mark(source: Source) -> str | None:
    """
    A text that another attempt, maybe on another worker, compares before it goes on with a source.

    Made of the fingerprint and of what is at both ends; None for a source that can't be recognised.
    """
    if isinstance(source, SpooledSource) or (source.remote and source.fingerprint.endswith("-")):
        return None
    ends = hashlib.sha256()
    length = min(_SAMPLE_BYTES, source.size_bytes)
    buffer = memoryview(bytearray(length))
    source.open()
    try:
        for offset in sorted({0, source.size_bytes - length}):
            read_exactly(source, offset, buffer)
            ends.update(buffer)
    finally:
        source.close()
    return f"{source.fingerprint}-{ends.hexdigest()[:16]}"

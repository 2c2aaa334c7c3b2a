"""
QuickSync as an fsspec filesystem, scheme ``quicksync``: names with ``/`` are paths.

``quicksync://reports/2026.csv`` is the newest completed file of that name; ``quicksync://.by-key/<file key>``
is one file, whatever its name. Writing a path adds a file, which is then the newest; removing a path removes
every completed file of that name. A written file is complete when :meth:`~QuickSyncFile.close` returns.

The service has no times, folders, renaming or appending: what needs one raises ``NotImplementedError``, and
making a folder does nothing.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from glob import has_magic
from typing import IO, Any

from fsspec.callbacks import DEFAULT_CALLBACK, Callback  # type: ignore[import-untyped]
from fsspec.core import get_compression  # type: ignore[import-untyped]
from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]
from fsspec.utils import isfilelike, stringify_path  # type: ignore[import-untyped]

from airflow_provider_quicksync.client.api import DEFAULT_BASE_URL, QuickSyncClient
from airflow_provider_quicksync.client.checks import check_text
from airflow_provider_quicksync.client.completion import wait_for_completion
from airflow_provider_quicksync.client.errors import NotFoundError, UsageError
from airflow_provider_quicksync.client.listing import (
    Listing,
    file_entry,
    folder_entry,
    is_key_path,
    is_path,
    path_of_key,
)
from airflow_provider_quicksync.client.models import FileInfo, Receipt
from airflow_provider_quicksync.client.open_files import (
    CompressedFile,
    QuickSyncFile,
    TextFile,
    file_errors,
    read_range,
)
from airflow_provider_quicksync.client.session_rules import session_use
from airflow_provider_quicksync.client.transfer.download import DownloadOptions, download
from airflow_provider_quicksync.client.transfer.link import Link
from airflow_provider_quicksync.client.transfer.sources import (
    Source,
    SpooledSource,
    data_source,
    open_source,
    room_to_spool,
)
from airflow_provider_quicksync.client.transfer.upload import UploadOptions, upload_many

SCHEME = "quicksync"
LISTING_SECONDS = 5.0
"""How long a listing is good for: looking around in many folders costs one request."""
BLOCK_BYTES = 4 << 20
"""What one request of an open file fetches."""
COMPLETION_POLL_SECONDS = 2.0
COMPLETION_SECONDS = 3600.0


class QuickSyncFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """
    The files of one session.

    :param client: what to read and write through; or, without one:
    :param token: the session token, for a client of its own at ``base_url`` with ``settings``, which are
        arguments of :class:`.QuickSyncClient`.
    :param options: how files are written.
    :param completion_seconds: how long closing a written file waits for its completion.
    """

    protocol = SCHEME
    root_marker = ""
    cachable = False  # two clients, or tokens, are not to be taken for the same
    blocksize = BLOCK_BYTES
    uplink_mib_per_second: float | None = None
    """How fast files go up, where that is known: compared with the time that the session has left."""

    def __init__(
        self,
        client: QuickSyncClient | None = None,
        *,
        token: str = "",
        base_url: str = DEFAULT_BASE_URL,
        options: UploadOptions | None = None,
        completion_seconds: float = COMPLETION_SECONDS,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._given = client
        self._token, self._base_url, self._settings = token, base_url, settings
        self._options, self._completion_seconds = options, completion_seconds
        self._listed: tuple[float, Listing] | None = None

    @cached_property
    def client(self) -> QuickSyncClient:
        """What this filesystem reads and writes through."""
        return self._given or QuickSyncClient(self._token, base_url=self._base_url, **self._settings)

    @cached_property
    def upload_options(self) -> UploadOptions:
        """How files are written."""
        return self._options or UploadOptions()

    # Paths

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """
        The path of a URL: ``reports/a.csv`` of ``quicksync://conn_id@/reports/a.csv``.

        :raises UsageError: a URL of another scheme.
        """
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        path = stringify_path(path)
        scheme, separator, rest = path.partition("://")
        if separator and scheme != SCHEME and scheme.isalnum():
            raise UsageError(f"{path!r} is not a path of QuickSync, which start with {SCHEME}://")
        if separator and scheme == SCHEME:
            netloc, slash, path = rest.partition("/")
            path = netloc.rpartition("@")[2] + slash + path
        path = path.strip("/")
        return "" if path == f"{SCHEME}:" else path  # what urllib makes of a URL without a path

    # Looking

    def _listing(self, *, fresh: bool = False) -> Listing:
        listed = self._listed
        if listed is None or fresh or time.monotonic() - listed[0] > LISTING_SECONDS:
            with file_errors():
                listing = Listing(self.client.list_files())
            self._listed = listed = time.monotonic(), listing
        return listed[1]

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget the listing."""
        self._listed = None

    def _lookup(self, path: str) -> tuple[Listing, FileInfo | None]:
        """The listing, and the file of a path; asks again before it says that nothing is there."""
        known = self._listed
        listing = self._listing()
        file = listing.file(path)
        if file is None and not listing.is_folder(path) and known and known[1] is listing:
            listing = self._listing(fresh=True)
            file = listing.file(path)
        return listing, file

    def file(self, path: str) -> FileInfo:
        """
        The file of a path.

        :raises FileNotFoundError: there is none.
        :raises IsADirectoryError: it is a folder.
        """
        path = self._strip_protocol(path)
        listing, file = self._lookup(path)
        if file is None and listing.is_folder(path):
            raise IsADirectoryError(errno.EISDIR, "it is a folder of QuickSync", path)
        if file is None:
            raise self._missing(path, listing)
        return file

    def _missing(self, path: str, listing: Listing) -> FileNotFoundError:
        if listing.is_unfinished(path):
            return FileNotFoundError(errno.ENOENT, "it is not complete yet: wait for it", path)
        return FileNotFoundError(errno.ENOENT, "QuickSync has no such file or folder", path)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """What there is to know of a file (its ``file_key`` too) or folder."""
        path = self._strip_protocol(path)
        listing, file = self._lookup(path)
        if file is not None:
            return file_entry(path, file)
        if listing.is_folder(path):
            return folder_entry(path)
        raise self._missing(path, listing)

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether it is there; unlike fsspec's own, a service that can't be asked is an error."""
        path = self._strip_protocol(path)
        listing, file = self._lookup(path)
        return file is not None or listing.is_folder(path)

    def isdir(self, path: str) -> bool:
        """Whether it is a folder."""
        path = self._strip_protocol(path)
        listing, file = self._lookup(path)
        return file is None and listing.is_folder(path)

    def isfile(self, path: str) -> bool:
        """Whether it is a file."""
        return self._lookup(self._strip_protocol(path))[1] is not None

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What is directly in a folder; a file is a list of itself."""
        path = self._strip_protocol(path)
        listing, file = self._lookup(path)
        if listing.is_folder(path):
            entries = listing.entries(path)
        elif file is not None:
            entries = [file_entry(path, file)]
        else:
            raise self._missing(path, listing)
        return [dict(entry) for entry in entries] if detail else [entry["name"] for entry in entries]

    def walk(self, path: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As fsspec's own, which takes a service that can't be asked for an empty one."""
        self._listing()
        yield from super().walk(path, *args, **kwargs)

    def versions(self, path: str) -> list[dict[str, Any]]:
        """Every completed file of a name, the newest last, by the paths of their keys."""
        found = self._listing(fresh=True).versions.get(self._strip_protocol(path), [])
        return [file_entry(path_of_key(file.file_key), file) for file in found]

    def sign(self, path: str, expiration: int | None = None, **kwargs: Any) -> str:
        """A temporary link to a file; how long it lasts is the service's to say. It is a secret."""
        with file_errors():
            return self.client.get_download_url(self.file(path).file_key)

    # Reading

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: dict[str, Any] | None = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """As fsspec's own, but what fails inside a ``with`` block is not sent."""
        kwargs |= {"block_size": block_size, "cache_options": cache_options}
        if "b" not in mode:
            text = {key: kwargs.pop(key) for key in ("encoding", "errors", "newline") if key in kwargs}
            binary = mode.replace("t", "") + "b"
            return TextFile(self.open(path, binary, compression=compression, **kwargs), **text)
        compression = get_compression(path, compression)
        if compression is None or mode == "rb":
            return super().open(path, mode, compression=compression, **kwargs)
        return CompressedFile(super().open(path, mode, **kwargs), compression)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> QuickSyncFile:
        if mode in ("ab", "r+b"):
            raise NotImplementedError("QuickSync can't change a file: write it anew")
        if mode == "xb":
            self.check_mode("create", path)
        return QuickSyncFile(self, path, mode, **kwargs)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """The bytes of a file, or a range of them, in one request."""
        file = self.file(path)
        first, last, _ = slice(start, end).indices(file.size_bytes)
        return b"" if first >= last else read_range(self.link(file), first, last)

    def get_file(
        self,
        rpath: str,
        lpath: Any,
        callback: Callback = DEFAULT_CALLBACK,
        outfile: IO[bytes] | None = None,
        **kwargs: Any,
    ) -> None:
        """Fetch a file in parallel ranges to a local path, which it replaces as a whole or not at all."""
        outfile = lpath if isfilelike(lpath) else outfile
        if outfile is None and self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        file = self.file(rpath)
        callback.set_size(file.size_bytes)
        if outfile is not None:
            with file_errors():
                self.link(file).fetch(0, file.size_bytes, outfile.write)
        else:
            os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
            options = DownloadOptions(checksum=False)
            with file_errors():
                download(self.client, file, lpath, options=options, progress=_shown(callback))
        callback.absolute_update(file.size_bytes)

    def link(self, file: FileInfo) -> Link:
        """What a file is read through."""
        with file_errors():
            return Link(self.client, file)

    # Writing

    def put_file(
        self,
        lpath: str,
        rpath: str,
        callback: Callback = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        **kwargs: Any,
    ) -> None:
        """Upload a local file in parallel parts, and wait for its completion."""
        if not os.path.isdir(lpath):
            self.check_mode(mode, rpath)
            with file_errors():
                self.upload_source(open_source(lpath), rpath, callback)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write bytes."""
        self.check_mode(mode, path)
        with file_errors():
            self.upload_source(data_source(value, name=path), path)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy a file: through this machine, as the service can't."""
        if self.isdir(path1):
            return
        file = self.file(path1)
        with file_errors(), room_to_spool(path1), tempfile.TemporaryFile(prefix="quicksync-") as spool:
            Link(self.client, file).fetch(0, file.size_bytes, spool.write)
            spool.flush()
            self.upload_source(SpooledSource(path2, os.dup(spool.fileno())), path2)

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Not what QuickSync can do."""
        raise NotImplementedError("QuickSync can't rename: use cp, which sends the file again, then rm")

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Do nothing: a folder is there as long as there is a file in it."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing."""

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """
        Remove files, or with ``recursive`` what is in folders. Every completed file of a name is removed.

        :raises IsADirectoryError: a folder, without ``recursive``; nothing was removed.
        """
        self.invalidate_cache()
        listing = self._listing()
        paths: list[str] = []
        for one in self._strip_protocol(path if isinstance(path, list) else [path]):
            # A file that is named with a * or a [ is meant itself, not what these match.
            itself = has_magic(one) and listing.file(one)
            paths += [one] if itself else self.expand_path(one, recursive=recursive, maxdepth=maxdepth)
        self._remove_all(list(dict.fromkeys(paths)), listing, recursive=recursive)

    def rm_file(self, path: str) -> None:
        """Remove a file, whatever is in its name."""
        self.invalidate_cache()
        self._remove_all([self._strip_protocol(path)], self._listing(), recursive=False)

    def _remove_all(self, paths: list[str], listing: Listing, *, recursive: bool) -> None:
        for one in paths:
            if listing.file(one) is None and not listing.is_folder(one):
                raise self._missing(one, listing)
            if listing.file(one) is None and not recursive:
                raise IsADirectoryError(errno.EISDIR, "it is a folder: remove it with recursive=True", one)
        try:
            for one in reversed(paths):
                self._remove(one, listing)
        finally:
            self.invalidate_cache()

    def _remove(self, path: str, listing: Listing) -> None:
        """Delete what a path stands for, oldest first, so that a failure leaves the newest."""
        file = listing.file(path)
        files = [file] if file and is_key_path(path) else listing.versions.get(path, [])
        for file in files:
            with file_errors(), suppress(NotFoundError):
                self.client.delete_file(file.file_key)

    def check_mode(self, mode: str, path: str) -> None:
        """:raises FileExistsError: the mode is ``create``, and it is there."""
        if mode == "create" and self.exists(path):
            raise FileExistsError(errno.EEXIST, "QuickSync has a file or folder of this name", path)

    def upload_source(self, source: Source, path: str, callback: Callback = DEFAULT_CALLBACK) -> Receipt:
        """Upload under a path, after checking that the session has room, and wait for completion."""
        name = self._strip_protocol(path)
        check_text("the file's name", name)
        if not is_path(name):
            raise UsageError(
                f"{name!r} can't be written: a path is no key, and has no empty, . or .. segment"
            )
        callback.set_size(source.size_bytes)
        try:
            if use := session_use(self.client):
                use.check(1, source.size_bytes, uplink_mib_per_second=self.uplink_mib_per_second)
            (receipt,) = upload_many(
                self.client, [(source, name)], options=self.upload_options, progress=_shown(callback)
            )
            wait_for_completion(
                self.client,
                [receipt["file_key"]],
                poll_seconds=COMPLETION_POLL_SECONDS,
                timeout_seconds=self._completion_seconds,
            )
        finally:
            self.invalidate_cache()
        callback.absolute_update(source.size_bytes)
        receipt["completed"] = True
        return receipt


def _shown(callback: Callback) -> Any:
    """A progress function for a callback."""
    return None if callback is DEFAULT_CALLBACK else lambda moved, total: callback.absolute_update(moved)

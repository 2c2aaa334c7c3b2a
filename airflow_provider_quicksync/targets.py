"""Where a download task puts files: local paths, or any store that Airflow's object storage writes."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_provider_quicksync.client import (
    ConflictError,
    DamagedError,
    DownloadReceipt,
    FileInfo,
    LimitError,
    NotFoundError,
    RefusedError,
    Stop,
    UsageError,
)
from airflow_provider_quicksync.client.listing import is_path
from airflow_provider_quicksync.receipts import as_receipts, is_single

if TYPE_CHECKING:
    from airflow_provider_quicksync.hooks import QuickSyncHook

IfTargetExists = Literal["replace", "skip", "fail"]


def fetch_all(
    hook: QuickSyncHook,
    file_key: Any,
    path: Any,
    if_exists: IfTargetExists,
    *,
    checksum: bool = True,
    stop: Stop | None = None,
) -> list[DownloadReceipt]:
    """
    Fetch files, after looking at every target.

    With ``fail``, what was fetched before a failure is removed again, so that another attempt can work.

    :raises UsageError: a file is not complete, or has no place below the folder.
    :raises ConflictError: ``fail``, and something is there; nothing was fetched.
    """
    if if_exists not in get_args(IfTargetExists):
        raise UsageError(f"if_exists must be one of {', '.join(get_args(IfTargetExists))}, not {if_exists!r}")
    wanted = as_receipts(file_key)
    files = _look_up(hook, wanted)
    targets = _targets(files, path, is_folder=not is_single(file_key) or str(path).endswith("/"))
    if if_exists == "fail" and (
        taken := [str(target) for target in targets if target.size_bytes() is not None]
    ):
        raise ConflictError(
            f"{len(taken)} of {len(targets)} targets are there already: {', '.join(taken[:5])}"
        )
    receipts: list[DownloadReceipt] = []
    try:
        for file, target, receipt in zip(files, targets, wanted, strict=True):
            if if_exists == "skip" and target.size_bytes() == file.size_bytes:
                hook.log.info("skipped %r: %s is there, with its size", file.name, target)
                receipts.append(_receipt(file, target))
            else:
                sha256 = target.fetch(hook, file, receipt.get("sha256"), checksum, stop)
                receipts.append({**_receipt(file, target), "sha256": sha256})
    except BaseException:
        if if_exists == "fail":
            for target in targets[: len(receipts)]:
                target.remove()
        raise
    return receipts


def _look_up(hook: QuickSyncHook, wanted: Sequence[Mapping[str, Any]]) -> list[FileInfo]:
    """What the service knows of the files, asked at once where there are several."""
    found = [hook.get_file(wanted[0]["file_key"])] if len(wanted) == 1 else hook.list_files()
    there = {file.file_key: file for file in found}
    gone = [one["file_key"] for one in wanted if one["file_key"] not in there]
    if gone:
        raise NotFoundError(f"the session has no file {', '.join(gone[:5])}; nothing was fetched", status=404)
    files = [there[one["file_key"]] for one in wanted]
    pending = [file.file_key for file in files if not file.completed]
    if pending:
        raise UsageError(f"files are not complete yet: {', '.join(pending[:5])}; wait for them first")
    return files


def _targets(files: Sequence[FileInfo], path: Any, *, is_folder: bool) -> list[Target]:
    targets: list[Target] = []
    for file in files:
        if not is_folder:
            targets.append(Target.of(path))
        elif not file.name or not is_path(file.name):
            raise UsageError(
                f"file {file.file_key} is named {file.name!r}, no place in a folder: give it a path"
            )
        else:
            targets.append(Target.of(path, below=file.name))
    places = [str(target) for target in targets]
    twice = (
        next((place for place in places if places.count(place) > 1), None)
        if len(set(places)) < len(places)
        else None
    )
    if twice:
        raise UsageError(
            f"two files would be put at {twice}: fetch them one by one, each to a path of its own"
        )
    return targets


def _receipt(file: FileInfo, target: Target) -> DownloadReceipt:
    return DownloadReceipt(
        file_key=file.file_key, name=file.name, size_bytes=file.size_bytes, sha256=None, path=str(target)
    )


@dataclass
class Target:
    """One place: a local path, or a remote ``ObjectStoragePath``."""

    path: str
    remote: Any = None

    @classmethod
    def of(cls, path: Any, below: str = "") -> Target:
        """
        The place that a path or URL names.

        :raises UsageError: it is neither.
        """
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        if isinstance(path, str) and "://" in path:
            path = ObjectStoragePath(path)
        if hasattr(path, "fs") and hasattr(path, "protocol"):
            path = path / below if below else path
            if path.protocol not in ("", "file", "local"):
                return cls(str(path), path)
            path, below = path.path, ""
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise UsageError(f"cannot download to {path!r}: pass a path, a URL or an ObjectStoragePath")
        return cls(os.path.join(os.fspath(path), below) if below else os.fspath(path))

    def __str__(self) -> str:
        return self.path

    def size_bytes(self) -> int | None:
        """The size of the file that is there; None where there is none."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if self.remote is not None:
                return int(self.remote.stat().st_size)
            return os.stat(self.path).st_size
        return None

    def fetch(
        self, hook: QuickSyncHook, file: FileInfo, sha256: str | None, checksum: bool, stop: Stop | None
    ) -> str | None:
        """Fetch a file to here, making folders as needed; its SHA-256 where it was asked for."""
        if self.remote is None:
            self._make_folder()
            return hook.download_file(file.file_key, self.path, sha256=sha256, checksum=checksum, stop=stop)[
                "sha256"
            ]
        with tempfile.TemporaryDirectory(prefix="quicksync-") as folder:
            staged = os.path.join(folder, "file")
            done = hook.download_file(file.file_key, staged, sha256=sha256, checksum=checksum, stop=stop)
            self._put(staged, file.size_bytes)
        return done["sha256"]

    def remove(self) -> None:
        """Remove what was fetched."""
        with suppress(OSError):
            self.remote.unlink() if self.remote is not None else os.unlink(self.path)

    def _make_folder(self) -> None:
        folder = os.path.dirname(os.path.abspath(self.path))
        try:
            os.makedirs(folder, exist_ok=True)
        except PermissionError:
            raise RefusedError(f"download target {self.path}: the folder {folder} may not be made") from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LimitError(f"download target {self.path}: the disk is full") from None
            raise UsageError(
                f"download target {self.path}: the folder can't be made: {error.strerror}"
            ) from None

    def _put(self, staged: str, size_bytes: int) -> None:
        """Put a file that was checked into the other store: there as a whole, or not under this name."""
        fs, path = self.remote.fs, self.remote.path
        self.remote.parent.mkdir(parents=True, exist_ok=True)
        if not _renames(fs):
            fs.put_file(staged, path)
        else:
            part = f"{path}.{secrets.token_hex(4)}.part"
            try:
                fs.put_file(staged, part)
                _check_arrived(self, fs.size(part), size_bytes)
                try:
                    fs.mv(part, path)
                except OSError:  # SMB and some FTP servers rename to no name that is taken
                    fs.rm_file(path)
                    fs.mv(part, path)
            except BaseException:
                with suppress(Exception):
                    fs.rm_file(part)
                raise
        with suppress(AttributeError, NotImplementedError):
            fs.invalidate_cache(fs._parent(path))
        _check_arrived(self, self.size_bytes(), size_bytes)


def _renames(fs: Any) -> bool:
    """Whether it is a file server, that renames and shows half a file, and not an object store."""
    from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

    from airflow_provider_quicksync.client.filesystem import QuickSyncFileSystem

    return type(fs).mv not in (AbstractFileSystem.mv, QuickSyncFileSystem.mv)


def _check_arrived(target: Target, found: int | None, size_bytes: int) -> None:
    if found != size_bytes:
        raise DamagedError(f"download target {target}: {found} of {size_bytes:,} bytes arrived there")

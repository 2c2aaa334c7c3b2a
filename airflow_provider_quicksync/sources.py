"""What an upload task's ``source`` names on this worker: files, and the names they get in QuickSync."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_quicksync.client import UsageError, open_source
from airflow_provider_quicksync.client.transfer.sources import RemoteSource, Source

_MAGIC = "*?["


def find_sources(source: Any, name: str | None) -> list[tuple[Source, str]]:
    """
    Open what ``source`` names: a path, a URL, a glob of either, an ``ObjectStoragePath``, or a list of these.

    :param name: the name of the one file; or, ending in ``/``, what goes before the name of each. Without
        one, a file keeps its own; what a glob finds keeps its path below the glob's fixed part.
    :return: (source, name) pairs; empty where a glob or list is.
    :raises NotFoundError: a named file does not exist.
    :raises UsageError: one ``name`` for several files, or something that can't be uploaded.
    """
    found = [pair for one in (source if is_collection(source) else [source]) for pair in _resolve(one)]
    if not name:
        return found
    if name.endswith("/"):
        return [(opened, name + own) for opened, own in found]
    if several(source):
        raise UsageError(
            f"name {name!r} is for one file; for several, let it end in '/': it then goes before each name"
        )
    return [(opened, name) for opened, _ in found]


def several(source: Any) -> bool:
    """Whether ``source`` may name several files, so that a list of receipts is wanted."""
    return is_collection(source) or _is_glob(source)


def is_collection(source: Any) -> bool:
    """Whether it is a list, a tuple, or the lazy sequence of mapped results."""
    return (
        isinstance(source, Iterable)
        and not isinstance(source, str | bytes | Mapping | os.PathLike)
        and not hasattr(source, "fs")
    )


def _is_glob(source: Any) -> bool:
    return isinstance(source, str) and any(c in source for c in _MAGIC) and not os.path.exists(source)


def _resolve(source: Any) -> Iterable[tuple[Source, str]]:
    if isinstance(source, str) and "://" in source:
        source = _object_storage(source)
        if any(c in source.path for c in _MAGIC):
            return _remote_matches(source)
    elif _is_glob(source):
        return _matches(source)
    opened = open_source(source)
    return [(opened, opened.name)]


def _object_storage(url: str) -> Any:
    try:
        path = ObjectStoragePath(url)
        _ = path.fs  # versions differ in when they look for it
    except (ImportError, ValueError) as error:
        raise UsageError(f"upload source {url!r} can't be opened: {error}") from error
    return path


def _matches(pattern: str) -> Iterable[tuple[Source, str]]:
    base = _fixed_part(pattern)
    for path in sorted(glob.iglob(pattern, recursive=True)):
        if os.path.isfile(path):
            yield open_source(path), Path(os.path.relpath(path, base or ".")).as_posix()


def _remote_matches(pattern: Any) -> Iterable[tuple[Source, str]]:
    fs, base = pattern.fs, _fixed_part(pattern.path)
    try:
        matches = fs.glob(pattern.path, detail=True)
    except FileNotFoundError:  # of some stores, where the folder has nothing in it
        return
    for path, info in sorted(matches.items()):
        if info.get("type") != "directory":
            own = PurePosixPath(path.strip("/")).relative_to(base.strip("/")).as_posix()
            is_local = pattern.protocol in ("", "file", "local")
            name = PurePosixPath(path).name
            yield open_source(path) if is_local else RemoteSource(name, fs, path), own


def _fixed_part(pattern: str) -> str:
    """The folder of a glob that has no magic in it."""
    head = pattern
    while any(c in head for c in _MAGIC):
        head = os.path.dirname(head)
    return head

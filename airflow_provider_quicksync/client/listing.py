"""
A session's files as a tree of folders: pure, made from one listing.

A name with ``/`` is a path. Where several completed files have one name, the newest is the path; each of them
is also reachable below ``.by-key/``. What has no path of its own, such as a name that could not be decrypted
or starts with ``/``, is reachable by its key only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, unquote

from airflow_provider_quicksync.client.models import FileInfo

BY_KEY = ".by-key"
"""The folder that has every completed file under its key, percent-encoded; the root's listing hides it."""


class Listing:
    """What a session held at one moment."""

    def __init__(self, files: Iterable[FileInfo]) -> None:
        self.versions: dict[str, list[FileInfo]] = {}
        """The completed files of each path, newest last, as the service lists them."""
        self.folders: dict[str, dict[str, dict[str, Any]]] = {"": {}}
        """What is directly in each folder, by path."""
        self._by_key: dict[str, FileInfo] = {}
        self._unfinished: set[str | None] = set()
        for file in files:
            self._add(file)

    def file(self, path: str) -> FileInfo | None:
        """The file that a path stands for."""
        if is_key_path(path):
            return self._by_key.get(path_of_key(key_of_path(path)))
        versions = self.versions.get(path)
        return versions[-1] if versions else None

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder of this path."""
        return path in self.folders or path == BY_KEY

    def entries(self, path: str) -> list[dict[str, Any]]:
        """What is directly in a folder, sorted."""
        if path == BY_KEY:
            return [file_entry(key_path, self._by_key[key_path]) for key_path in sorted(self._by_key)]
        folder = self.folders[path]
        return [folder[name] for name in sorted(folder)]

    def is_unfinished(self, path: str) -> bool:
        """Whether a file of this path is there, but not completed."""
        return path in self._unfinished

    def _add(self, file: FileInfo) -> None:
        key_path, path = path_of_key(file.file_key), file.name
        if not file.completed:
            self._unfinished |= {key_path, path}
            return
        self._by_key[key_path] = file
        if path is None or not is_path(path):
            return
        self.versions.setdefault(path, []).append(file)
        entry = file_entry(path, file)
        while True:
            parent = entry["name"].rpartition("/")[0]
            known = parent in self.folders
            kept = self.folders.setdefault(parent, {}).setdefault(entry["name"], entry)
            if entry["type"] == "file":
                kept.update(entry)  # also where there is a folder of that name
            if known:
                return
            entry = folder_entry(parent)


def file_entry(path: str, file: FileInfo) -> dict[str, Any]:
    """A file as fsspec describes one."""
    return {
        "name": path,
        "type": "file",
        "size": file.size_bytes,
        "file_key": file.file_key,
        "creator_id": file.creator_id,
    }


def folder_entry(path: str) -> dict[str, Any]:
    """A folder as fsspec describes one."""
    return {"name": path, "type": "directory", "size": 0}


def is_path(name: str) -> bool:
    """Whether a file's name can be its path."""
    segments: Sequence[str] = name.split("/")
    return not is_key_path(name) and not any(segment in ("", ".", "..") for segment in segments)


def is_key_path(path: str) -> bool:
    """Whether a path is in the folder of keys."""
    return path == BY_KEY or path.startswith(f"{BY_KEY}/")


def path_of_key(file_key: str) -> str:
    """The path of one file, whatever its name."""
    return f"{BY_KEY}/{quote(file_key, safe='')}"


def key_of_path(path: str) -> str:
    """The key in a path of :func:`path_of_key`."""
    return unquote(path.removeprefix(f"{BY_KEY}/"))

"""Key-value stores as Airflow's task state store is one, and what may be wrong with them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUE_BYTES = 65_535


class MemoryStore:
    """JSON values up to the size that Airflow's REST API takes; counts what is asked of it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.fails: Callable[[str, str], bool] = lambda method, key: False

    def get(self, key: str, default: Any = None) -> Any:
        self._asked("get", key)
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self._asked("set", key)
        text = json.dumps(value)
        if value is None or len(text) > VALUE_BYTES:
            raise ValueError(f"{key} can't be kept: {len(text)} bytes")
        self.values[key] = text

    def delete(self, key: str) -> None:
        self._asked("delete", key)
        self.values.pop(key, None)

    def kept(self) -> set[str]:
        return {key.removeprefix("quicksync.") for key in self.values}

    def writes(self) -> list[str]:
        return [key for method, key in self.asked if method == "set"]

    def _asked(self, method: str, key: str) -> None:
        self.asked.append((method, key))
        if self.fails(method, key):
            raise RuntimeError("the state backend is not available: secret-of-the-backend")


class FileStore:
    """A store that outlives the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def get(self, key: str, default: Any = None) -> Any:
        path = self._folder / key
        return json.loads(path.read_text()) if path.exists() else default

    def set(self, key: str, value: Any) -> None:
        partial = self._folder / f".{key}.{os.getpid()}"
        partial.write_text(json.dumps(value))
        partial.replace(self._folder / key)

    def delete(self, key: str) -> None:
        (self._folder / key).unlink(missing_ok=True)

    def kept(self) -> set[str]:
        return {path.name.removeprefix("quicksync.") for path in self._folder.glob("[!.]*")}

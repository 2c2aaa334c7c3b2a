"""The filesystem of an Airflow connection: behind ``quicksync://conn_id@/name`` wherever fsspec is."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_quicksync.client import QuickSyncClient, UploadOptions, UsageError
from airflow_provider_quicksync.client import filesystem as client_filesystem
from airflow_provider_quicksync.compat import mask_secret


class QuickSyncFileSystem(client_filesystem.QuickSyncFileSystem):
    """
    The files of a connection's session.

    :param conn_id: the connection, read when it is first needed; ``quicksync_default`` without one.
    :param options: of :class:`.client.filesystem.QuickSyncFileSystem`; with ``token`` or ``client`` no
        connection is read. Otherwise what overrides the connection's, as in the hook: ``session_id``, …
    """

    def __init__(self, conn_id: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.conn_id = conn_id
        self._is_connected = not (options.get("token") or options.get("client"))

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        conn_id = urlsplit(path).netloc.rpartition("@")[0]
        return {"conn_id": conn_id} if conn_id else {}

    @cached_property
    def _hook(self) -> Any:
        from airflow_provider_quicksync.hooks import QuickSyncHook

        conn_id = self.conn_id or QuickSyncHook.default_conn_name
        hook = QuickSyncHook(conn_id, **self._settings)
        if hook.configuration.session_mode == "create":
            raise UsageError(
                f"connection {conn_id!r} makes a session for each task, in which nothing is yet: for"
                " files, set session_id on the connection or in the storage options"
            )
        return hook

    @cached_property
    def uplink_mib_per_second(self) -> float | None:  # type: ignore[override]
        """As the connection has it."""
        return self._hook.configuration.settings.get("uplink_mib_per_second") if self._is_connected else None

    @cached_property
    def client(self) -> QuickSyncClient:
        """The connection's client."""
        return self._hook.get_conn() if self._is_connected else super().client

    @cached_property
    def upload_options(self) -> UploadOptions:
        """As the connection has it."""
        if self._options or not self._is_connected:
            return super().upload_options
        found = self._hook.configuration
        return UploadOptions(part_size_bytes=found.part_size_bytes, concurrency=found.concurrency)

    def sign(self, path: str, expiration: int | None = None, **kwargs: Any) -> str:
        """A temporary link to a file, masked in logs. It is a secret."""
        url = super().sign(path, expiration, **kwargs)
        mask_secret(url)
        return url

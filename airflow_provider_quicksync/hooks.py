"""
QuickSyncHook: an Airflow connection becomes a client, and the calls that people make in their tasks.

The work itself is done below, in :mod:`airflow_provider_quicksync.client`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseHook,
    TaskDeferred,
)

from airflow_provider_quicksync.client import (
    CreatedSession,
    DownloadOptions,
    DownloadReceipt,
    FileInfo,
    JoinedSession,
    NotFoundError,
    QuickSyncClient,
    QuickSyncError,
    Receipt,
    SessionExpiredError,
    SessionInfo,
    Stop,
    UploadOptions,
    UsageError,
    data_source,
    download,
    errors,
    open_source,
    upload_many,
)
from airflow_provider_quicksync.client.checks import check_text
from airflow_provider_quicksync.client.completion import Verdict, check_completion, wait_for_completion
from airflow_provider_quicksync.client.credentials import SessionMemory
from airflow_provider_quicksync.client.errors import is_hopeless
from airflow_provider_quicksync.client.session_rules import session_use
from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint
from airflow_provider_quicksync.client.transfer.existing import IfExists, list_others, select, superseded
from airflow_provider_quicksync.client.transfer.progress import ProgressLog, size
from airflow_provider_quicksync.client.transfer.resume import give_up, resume
from airflow_provider_quicksync.client.transfer.sources import Source
from airflow_provider_quicksync.compat import mask_secret
from airflow_provider_quicksync.connection import (
    HOST_NAME,
    Configuration,
    ConnectionLike,
    Settings,
    read_connection,
)
from airflow_provider_quicksync.metrics import emit, measured_upload
from airflow_provider_quicksync.provider_info import CONNECTION_FIELDS, FORM_BEHAVIOUR
from airflow_provider_quicksync.receipts import FileKeys, as_file_key, as_file_keys, named_session

if TYPE_CHECKING:
    from typing import Unpack


class QuickSyncHook(BaseHook):
    """
    Upload to, look into, fetch from and delete from a QuickSync session.

    :param quicksync_conn_id: the connection; its password is the session token.
    :param settings: the connection's extras, such as ``max_concurrency``; they win over the connection.
    """

    conn_name_attr = "quicksync_conn_id"
    default_conn_name = "quicksync_default"
    conn_type = "quicksync"
    hook_name = "QuickSync"

    def __init__(self, quicksync_conn_id: str = default_conn_name, **settings: Unpack[Settings]) -> None:
        super().__init__()
        self.quicksync_conn_id = quicksync_conn_id
        self._settings = settings
        self._client: QuickSyncClient | None = None

    def __enter__(self) -> QuickSyncHook:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The extra fields of the form, for Airflow before 3.3; newer ones read the provider info."""
        from airflow_provider_quicksync.compat import form_widget

        return {name: form_widget(field) for name, field in CONNECTION_FIELDS.items()}

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """How the form shows the standard fields, for Airflow before 3.3."""
        return {key.replace("-", "_"): value for key, value in FORM_BEHAVIOUR.items()}

    @cached_property
    def configuration(self) -> Configuration:
        """
        The connection, checked.

        :raises UsageError: a field has a value that can't be used.
        """
        return configure(self.get_connection(self.quicksync_conn_id), self._settings)

    def get_conn(self) -> QuickSyncClient:
        """
        The client for the connection; one per hook, closed with it.

        :raises UsageError: the connection's token is of another session than the one that was named.
        """
        if self._client is None:
            client = self.configuration.client(on_token=mask_secret)
            try:
                self.configuration.check_session(client)
            except BaseException:
                client.close()
                raise
            self._client = client
        return self._client

    def _get_conn_to_files(self) -> QuickSyncClient:
        """
        The client, in a session that may hold files.

        :raises UsageError: the connection would make a new one.
        """
        if self._client is None or self._client.credentials.session_id is None:
            self.configuration.check_may_hold_files()
        return self.get_conn()

    def close(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def test_connection(self) -> tuple[bool, str]:
        """
        Look at the session without changing anything: where bearers come from, its rules and what is left of
        them, or what is wrong.

        A session that a wallet joins is joined, as every task does; none is created, only the wallet proven.
        """
        try:
            if self.configuration.session_mode == "create":
                return True, self._test_wallet()
            client = self.get_conn()
            use = session_use(client)
            said = use.describe() if use else f"{len(client.list_files())} files; the service tells no rules"
        except QuickSyncError as error:
            return False, str(error)
        finally:
            self.close()
        credentials, source = client.credentials, "the connection's token"
        if isinstance(credentials, JoinedSession):
            source = f"joined as wallet {credentials.address}"
        return True, f"{client.base_url}: {source}; {said}"

    def _test_wallet(self) -> str:
        rules = self.configuration.session_rules()
        with self.configuration.session_api() as api:
            api.prove_wallet()
            return (
                f"{self.configuration.base_url}: wallet {api.address} is accepted; a task that names no"
                f" session creates one of {rules.expiry_seconds:,} s; the test creates none"
            )

    # Sessions

    def create_session(self, name: str = HOST_NAME, *, memory: SessionMemory | None = None) -> dict[str, Any]:
        """
        Create a session with the connection's wallet and the rules of its settings (``session_…``).

        This hook doesn't go into it: ``QuickSyncHook(conn_id, session_id=…)`` does.

        :param name: what its host is called.
        :param memory: where its id is kept for a next attempt, which finds it again.
        :return: its id and its rules, without its token.
        """
        rules = self.configuration.session_rules()
        with self.configuration.session_api() as api:
            created = CreatedSession(api, rules, name, memory=memory, on_token=mask_secret).enter()
        self.log.info("session %s lives for %s s", created.session_id, created.expires_in)
        return created.as_dict()

    def current_session(self) -> SessionInfo:
        """The session and its rules. :raises NotFoundError: the service tells none."""
        return self.get_conn().current_session()

    def disconnect_session(self) -> None:
        """Leave the session; what else this wallet does in it may lose its bearers."""
        self.get_conn().disconnect_session()

    def delete_session(self) -> bool:
        """End the session and all its files, as its host; whether it was there."""
        try:
            self.get_conn().delete_session()
        except (NotFoundError, SessionExpiredError) as error:
            self.log.info("the session had ended before: %s", error)
            return False
        return True

    @property
    def session_to_name(self) -> str | None:
        """The session that others have to name to get where this hook is; None where the connection says."""
        if self.configuration.names_session:
            return str(self.configuration.settings["session_id"])
        if self.configuration.session_mode == "create":
            return self.get_conn().credentials.session_id
        return None

    # Uploads

    def upload_file(
        self,
        source: Any,
        *,
        name: str | None = None,
        if_exists: IfExists = "add",
        wait_for_completion: bool = False,
        checksum: bool = True,
    ) -> Receipt:
        """
        Upload one file.

        :param source: a path, an ``ObjectStoragePath``, or a binary file object.
        :param name: its name in QuickSync; by default the source's.
        :param if_exists: ``add`` another file of that name, ``skip`` when a complete one is there,
            ``replace`` those of the same creator once the new one is complete, or ``fail``.
        :param wait_for_completion: return only when the service has completed the file.
        :param checksum: compute SHA-256 for the receipt.
        :raises QuickSyncError: it failed; what was begun was removed.
        """
        opened = open_source(source)
        return self._upload_one(opened, name or opened.name, if_exists, wait_for_completion, checksum)

    def upload_data(
        self,
        data: bytes | str,
        name: str,
        *,
        if_exists: IfExists = "add",
        wait_for_completion: bool = False,
        checksum: bool = True,
    ) -> Receipt:
        """Upload bytes, or text as UTF-8, under a name; otherwise as :meth:`upload_file`."""
        return self._upload_one(data_source(data, name=name), name, if_exists, wait_for_completion, checksum)

    def upload_sources(
        self,
        items: Sequence[tuple[Source, str]],
        *,
        if_exists: IfExists = "add",
        checksum: bool = True,
        stop: Stop | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> tuple[list[Receipt], list[str]]:
        """
        Upload (source, name) pairs, after checking that the session has room for them.

        :param checkpoint: where what a next attempt needs is kept.
        :return: the receipts in order, and the keys of the older files that ``if_exists="replace"`` is
            to remove once the new ones are complete.
        """
        try:
            return self._upload_sources(
                items, if_exists, checksum, stop.attempt() if stop else None, checkpoint
            )
        except SessionExpiredError as error:
            if self.configuration.session_mode != "create":
                raise
            self.log.warning("%s; starting again in a new session", error)
        self.close()
        if checkpoint:
            checkpoint.entered(None)
        return self._upload_sources(items, if_exists, checksum, stop, checkpoint)

    def _upload_sources(
        self,
        items: Sequence[tuple[Source, str]],
        if_exists: IfExists,
        checksum: bool,
        stop: Stop | None,
        checkpoint: Checkpoint | None,
    ) -> tuple[list[Receipt], list[str]]:
        client = self.get_conn()
        if isinstance(client.credentials, CreatedSession):
            client.credentials.memory = checkpoint
        for _, name in items:
            check_text("the file's name", name)
        selection = select(client, items, if_exists, checkpoint)
        for receipt in selection.kept.values():
            self.log.info("skipped %r: it is there as %s", receipt["name"], receipt["file_key"])
        sent: list[Receipt] = []
        if selection.items:
            total_bytes = sum(source.size_bytes for source, _ in selection.items)
            files = selection.files
            if use := session_use(
                client, lambda: list_others(client, checkpoint) if files is None else files
            ):
                resumed = checkpoint is not None and bool(checkpoint.known)
                rate = 0 if resumed else self.configuration.settings.get("uplink_mib_per_second")
                use.check(len(selection.items), total_bytes, uplink_mib_per_second=rate)
            sent = self._send(client, selection.items, total_bytes, checksum, stop, checkpoint)
        elif checkpoint:
            resume(client, checkpoint, [])  # removes what an earlier attempt has begun
        return selection.merged(sent), superseded(client, selection, sent)

    @contextmanager
    def cleaning_up(self, checkpoint: Checkpoint | None) -> Iterator[None]:
        """Where a task ends for good without success, remove what its attempts have left unfinished."""
        try:
            yield
        except TaskDeferred:
            raise
        except BaseException as error:
            is_over = isinstance(error, AirflowFailException | AirflowSkipException)
            if checkpoint and (is_over or checkpoint.is_over(error)):
                try:
                    give_up(self.get_conn(), checkpoint)
                except QuickSyncError as failed:
                    self.log.warning("what was begun may be there still: %s", failed)
            raise

    def _upload_one(
        self, source: Source, name: str, if_exists: IfExists, wait: bool, checksum: bool
    ) -> Receipt:
        (receipt,), older = self.upload_sources([(source, name)], if_exists=if_exists, checksum=checksum)
        if wait or older:
            self.wait_for_completion(receipt)
            receipt["completed"] = True
        for key in older:
            self.delete_file(key)
        return receipt

    def _send(
        self,
        client: QuickSyncClient,
        items: Sequence[tuple[Source, str]],
        total_bytes: int,
        checksum: bool,
        stop: Stop | None,
        checkpoint: Checkpoint | None,
    ) -> list[Receipt]:
        what = f"uploading {items[0][1]!r}" if len(items) == 1 else f"uploading {len(items)} files"
        self.log.info("%s (%s) to %s", what, size(total_bytes), client.base_url)
        options = UploadOptions(
            part_size_bytes=self.configuration.part_size_bytes,
            concurrency=self.configuration.concurrency,
            checksum=checksum,
        )
        progress = ProgressLog(self.log, what)
        with measured_upload(client):
            receipts = upload_many(
                client, items, options=options, stop=stop, progress=progress, checkpoint=checkpoint
            )
        for receipt in receipts:
            self.log.info(
                "uploaded %r as %s: %d bytes in %d part(s), SHA-256 %s",
                receipt["name"],
                receipt["file_key"],
                receipt["size_bytes"],
                receipt["parts"],
                receipt["sha256"],
            )
        self.log.info("%s: %s", what, progress.summary(total_bytes))
        return receipts

    # Files

    def list_files(self) -> list[FileInfo]:
        """Every file of the session, unfinished ones too."""
        return self._get_conn_to_files().list_files()

    def find_files(self, name: str) -> list[FileInfo]:
        """The files with this name, oldest first as the service lists them; names may repeat."""
        return [file for file in self.list_files() if file.name == name]

    def get_file(self, file_key: FileKeys) -> FileInfo:
        """What the service knows of one file. :raises NotFoundError: it knows none with this key."""
        return self._get_conn_to_files().get_file(as_file_key(file_key))

    def is_complete(self, file_key: FileKeys) -> bool:
        """Whether the service has completed a file. :raises NotFoundError: it knows none with this key."""
        return self.get_file(file_key).completed

    def check_completion(self, file_keys: Sequence[str]) -> Verdict:
        """How far files are; see :func:`.client.completion.verdict`."""
        return check_completion(self._get_conn_to_files(), file_keys)

    def wait_for_completion(
        self,
        file_key: FileKeys,
        *,
        poll_seconds: float = 5.0,
        timeout_seconds: float = 3600.0,
        stop: Stop | None = None,
    ) -> list[FileInfo]:
        """
        Block until all of one or several files are complete.

        :raises DeadlineError: they were not in time.
        :raises NotFoundError: one isn't there.
        """
        return wait_for_completion(
            self._get_conn_to_files(),
            as_file_keys(file_key),
            poll_seconds=poll_seconds,
            timeout_seconds=timeout_seconds,
            stop=stop,
        )

    def get_download_url(self, file_key: FileKeys) -> str:
        """A temporary link to a complete file. It is a secret: who has it can read the file."""
        url = self._get_conn_to_files().get_download_url(as_file_key(file_key))
        mask_secret(url)
        return url

    def download_file(
        self,
        file_key: FileKeys,
        path: str,
        *,
        sha256: str | None = None,
        checksum: bool = True,
        stop: Stop | None = None,
    ) -> DownloadReceipt:
        """
        Fetch a complete file to a local path, which it replaces as a whole or not at all.

        :param file_key: a key, or a receipt, whose SHA-256 is then checked.
        :param sha256: what the file's SHA-256 must be.
        :raises DamagedError: size or SHA-256 are wrong; nothing is left at ``path``.
        """
        if sha256 is None and isinstance(file_key, dict):
            sha256 = file_key.get("sha256")
        client, file = self._get_conn_to_files(), self.get_file(file_key)
        if not file.completed:
            raise UsageError(f"file {file.file_key} is not complete yet: wait for it before fetching it")
        what = f"downloading {file.name!r}"
        progress = ProgressLog(self.log, what)
        concurrency = self.configuration.settings.get("max_concurrency") or DownloadOptions.concurrency
        options = DownloadOptions(concurrency=concurrency, sha256=sha256, checksum=checksum)
        started = time.monotonic()
        receipt = download(client, file, path, options=options, stop=stop, progress=progress)
        emit("download", started, bytes=file.size_bytes)
        self.log.info("%s to %s: %s", what, path, progress.summary(file.size_bytes))
        return receipt

    def delete_file(self, file_key: FileKeys, *, ignore_missing: bool = True) -> bool:
        """Delete one file; whether it was there. :raises NotFoundError: it wasn't, and that isn't ignored."""
        key = as_file_key(file_key)
        try:
            self._get_conn_to_files().delete_file(key)
        except NotFoundError:
            if not ignore_missing:
                raise
            return False
        self.log.info("deleted file %s", key)
        return True


def configure(connection: ConnectionLike, settings: Settings) -> Configuration:
    """
    Check a connection, and register its secrets with Airflow's masker.

    :raises UsageError: a field has a value that can't be used.
    """
    found = read_connection(connection, settings)
    for secret in found.secrets:
        mask_secret(secret)
    return found


def task_hook(task: Any, **settings: Any) -> QuickSyncHook:
    """
    The hook of a task's connection, and of the session that the task names.

    :raises UsageError: what it was given for a session comes to none.
    """
    named = named_session(task.session_id, was_given=task._names_session)
    return QuickSyncHook(task.quicksync_conn_id, session_id=named, **settings)


@contextmanager
def no_retry_where_hopeless() -> Iterator[None]:
    """Turn errors that another attempt of the task can't mend into Airflow's failure without a retry."""
    try:
        yield
    except QuickSyncError as error:
        if is_hopeless(error):
            raise AirflowFailException(str(error)) from error
        raise


def error_of_event(event: Mapping[str, Any]) -> Exception:
    """The error that a trigger's event tells of."""
    if event["hopeless"]:
        return AirflowFailException(event["message"])
    kind: type[QuickSyncError] = getattr(errors, event["error"], QuickSyncError)
    return kind(event["message"])

"""``quicksync-local``: a QuickSync on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_quicksync.local.connection import airflow_connection, base_url, export_line
from airflow_provider_quicksync.local.settings import Settings

if TYPE_CHECKING:
    from airflow_provider_quicksync.local.server import Server

DEFAULT_PORT = 8484

_TEXT_OPTIONS = {
    "token": "a fixed bearer, kept in the root (default: a JWT, made once)",
    "session-id": "the id of the session (default: made once)",
    "creator-id": "the creatorId of the files (default: made once)",
    "api-key": "require this X-API-KEY for PUT /buckets and POST /session",
    "key-prefix": "what each file key starts with",
    "link-host": "another name of this machine for download links",
    "content-type": "send JSON under this type whatever Accept says",
}
_COUNT_OPTIONS = {
    "min-part-bytes": "the smallest part but the last",
    "max-parts": "the most parts of a file",
    "complete-after-polls": "how many polls a file says 'not completed'",
    "max-files": "the session's files",
    "max-total-megabytes": "the session's megabytes",
    "max-users": "the session's users",
}
_SECONDS_OPTIONS = {
    "complete-after-seconds": "how long a file takes to be completed",
    "session-seconds": "how long a session lives",
    "token-seconds": "a shorter life for the bearers of created and joined sessions",
    "wallet-seconds": "how long a wallet bearer lives",
    "link-seconds": "how long a download link lives",
    "hub-ping-seconds": "how often the session hub pings",
    "hub-timeout-seconds": "how long a client of the hub may be silent",
    "latency-seconds": "added to every call",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = _settings(options)
    except ValueError as error:
        return _refuse(str(error))
    if not options.quiet:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        asyncio.run(_serve(options.root, settings))
    except ModuleNotFoundError as error:
        return _refuse(f"{error.name} is missing: pip install 'airflow-provider-quicksync[local]'")
    except _CannotStart as error:
        return _refuse(str(error))
    return 0


class _CannotStart(Exception):
    """The root or the address cannot be used."""


def _refuse(reason: str) -> int:
    print(f"quicksync-local: {reason}", file=sys.stderr)
    return 1


def _default_root() -> Path:
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / "quicksync-local"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="quicksync-local",
        description="A QuickSync on this machine, to test DAGs with.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one")
    parser.add_argument("--root", type=Path, default=_default_root(), help="where bytes and state are kept")
    parser.add_argument("--quiet", action="store_true", help="no line for each request")
    kinds = ((_TEXT_OPTIONS, str), (_COUNT_OPTIONS, int), (_SECONDS_OPTIONS, float))
    for texts, kind in kinds:
        for name, text in texts.items():
            default = getattr(Settings, name.replace("-", "_"))
            parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    values = {name: value for name, value in vars(options).items() if name not in ("root", "quiet")}
    return Settings(**values)


async def _serve(root: Path, settings: Settings) -> None:
    server = _open(root, settings)
    try:
        port = await server.start()
    except OSError as error:
        reason = error.strerror or error
        raise _CannotStart(f"cannot listen on {settings.host}:{settings.port}: {reason}") from error
    try:
        core, url = server.core, base_url(settings.host, port)
        connection = airflow_connection(url, core.token, core.session_id, settings)
        print(f"QuickSync on this machine: {url}  (root {root}, session {core.session_id})")
        print(export_line(connection), flush=True)
        await _until_told_to_stop()
    finally:
        await server.stop()


def _open(root: Path, settings: Settings) -> Server:
    from airflow_provider_quicksync.local.server import Server
    from airflow_provider_quicksync.local.store import StoreError

    try:
        return Server(root, settings)
    except StoreError as error:
        raise _CannotStart(str(error)) from error


async def _until_told_to_stop() -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())

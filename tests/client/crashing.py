"""
An attempt of an upload in a process of its own, which may be killed.

``python crashing.py`` with the arguments below as JSON. ``at`` says where the process kills itself (SIGKILL):
``POST /buckets`` or ``POST /buckets/complete``, once the service has answered but before anybody knows;
``started``, once the upload is noted; ``part``, after so many parts; ``tags``, when all parts are noted;
``done``, when the finished file is noted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_quicksync.client import (
    HttpOptions,
    QuickSyncClient,
    ServiceLimits,
    UploadOptions,
    open_source,
    upload_many,
)
from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from stores import FileStore  # type: ignore[import-not-found]


def main(
    url: str,
    token: str,
    session_id: str,
    store: str,
    paths: list[str],
    at: str = "",
    after: int = 1,
    **how: Any,
) -> None:
    client = QuickSyncClient(
        token,
        base_url=url,
        session_id=session_id,
        cipher=how.get("cipher", "qs-share"),
        limits=ServiceLimits(100, 50),
        http=HttpOptions(connect_timeout=5, read_timeout=60),
    )
    checkpoint = Checkpoint(FileStore(Path(store)))
    if at.startswith("POST"):
        client._transport.call = kill_after(  # type: ignore[method-assign]
            client._transport.call, after, lambda method, path, **_: f"{method} {path}" == at
        )
    elif at == "part":
        client.put_part = kill_after(client.put_part, after)  # type: ignore[method-assign]
    elif at in ("started", "done"):
        write = checkpoint.write if at == "done" else lambda: None
        note = getattr(checkpoint, at)
        setattr(checkpoint, at, kill_after(lambda *a: (note(*a), write()), after))
    elif at == "tags":
        client.complete_upload = kill_after(lambda *a, **b: None, 1)  # type: ignore[method-assign]
    items = [(open_source(path), os.path.basename(path)) for path in paths]
    options = UploadOptions(how.get("part_size_bytes", 1000), how.get("concurrency", 2))
    receipts = upload_many(client, items, options=options, checkpoint=checkpoint)
    checkpoint.clear()
    print(json.dumps(receipts))


def kill_after(
    call: Callable[..., Any], times: int, counts: Callable[..., bool] = lambda *a, **b: True
) -> Callable[..., Any]:
    """Do as ``call`` does, and kill this process after the call has been made so often."""
    left, lock = times, threading.Lock()

    def called(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        result = call(*arguments, **options)
        with lock:
            left -= counts(*arguments, **options)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return result

    return called


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))

"""Bytes and state outlive the process; memory does not grow with a part."""

from __future__ import annotations

import signal
import sys
import threading

import pytest

from airflow_provider_quicksync.local import LocalQuickSync

PARTS = (b"a" * 100, b"b" * 100, b"c")


def test_a_restart_keeps_port_token_files_and_unfinished_uploads(api, quicksync):
    key, upload = api.uploaded(*PARTS), api.started(*PARTS)
    tags = [api.put_part(upload, number, PARTS[number - 1]).json()["tag"] for number in (1, 2)]
    before = (quicksync.url, quicksync.token, quicksync.session_id, quicksync.creator_id)
    link = api.get_download_url(key).json()["url"]
    quicksync.restart()
    assert (quicksync.url, quicksync.token, quicksync.session_id, quicksync.creator_id) == before
    assert api.download(link).content == b"".join(PARTS)
    tags.append(api.put_part(upload, 3, PARTS[2]).json()["tag"])
    assert api.complete(upload, tags).status_code == 200
    assert api.content(upload["fileKey"]) == b"".join(PARTS)


def test_state_survives_a_kill_in_the_middle_of_a_part(command, api_of, tmp_path, wait_for):
    options = ("--root", str(tmp_path / "root"), "--min-part-bytes", "100")
    first = command(*options)
    api = api_of(first)
    key, upload = api.uploaded(*PARTS), api.started(*PARTS)
    tags = [api.put_part(upload, 1, PARTS[0]).json()["tag"]]

    def killing_body():
        yield b"x" * 50
        wait_for(lambda: len(list((tmp_path / "root" / "parts").iterdir())) == 5)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(30)
        yield b"x" * 50

    with pytest.raises(OSError, match="Connection"):
        api.put_part(upload, 2, killing_body())
    second = command(*options)
    api = api_of(second)
    assert (second.token, second.connection["extra"]) == (first.token, first.connection["extra"])
    assert len(list((tmp_path / "root" / "parts").iterdir())) == 4
    assert api.content(key) == b"".join(PARTS)
    tags += [api.put_part(upload, number, PARTS[number - 1]).json()["tag"] for number in (2, 3)]
    assert api.complete(upload, tags).status_code == 200
    assert api.content(upload["fileKey"]) == b"".join(PARTS)


def test_a_root_serves_one_server_at_a_time(quicksync):
    with pytest.raises(Exception, match="another server uses"):
        LocalQuickSync(quicksync.root).start()


def test_a_stopped_server_still_tells_its_files(api, quicksync):
    key = api.uploaded(b"x")
    quicksync.stop()
    (file,) = quicksync.files()
    assert (file["file_key"], file["stored"], file["received_parts"]) == (key, True, 1)


def test_a_temporary_root_is_removed_at_the_end():
    with LocalQuickSync() as quicksync:
        root = quicksync.root
        assert root.exists()
    assert not root.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_part_of_256_mib_does_not_grow_the_server(command, api_of, tmp_path):
    server = command("--root", str(tmp_path / "root"), "--quiet")
    api, block = api_of(server), b"x" * 2**20
    warm = api.started(block)
    api.put_part(warm, 1, block)
    before, highest, done = server.resident_kib(), 0, threading.Event()

    def body():
        nonlocal highest
        for _ in range(256):
            yield block
            highest = max(highest, server.resident_kib())
        done.set()

    upload = api.initiate(1, 256 * 2**20).json()
    tag = api.put_part(upload, 1, body()).json()["tag"]
    assert api.complete(upload, [tag]).status_code == 200
    with api.download(api.get_download_url(upload["fileKey"]).json()["url"], stream=True) as response:
        received = 0
        for chunk in response.iter_content(2**20):
            received += len(chunk)
            highest = max(highest, server.resident_kib())
    assert received == 256 * 2**20
    assert highest - before < 8 * 1024


def test_many_small_files_stay_in_their_order(api):
    keys = [api.uploaded(b"%d" % number) for number in range(50)]
    assert [file["fileKey"] for file in api.list_files().json()] == keys

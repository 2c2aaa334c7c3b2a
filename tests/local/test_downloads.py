"""Download links."""

from __future__ import annotations

import pytest

PARTS = (b"0123456789" * 10, b"abcdefghij" * 10, b"xyz")
WHOLE = b"".join(PARTS)


@pytest.fixture
def link(api):
    return api.get_download_url(api.uploaded(*PARTS)).json()["url"]


@pytest.mark.parametrize(
    ("wanted", "first", "stop"),
    [
        ("0-0", 0, 1),
        ("95-104", 95, 105),
        ("150-", 150, 203),
        ("-3", 200, 203),
        ("0-999", 0, 203),
        ("-999", 0, 203),
    ],
)
def test_a_range_is_served_across_parts(api, link, wanted, first, stop):
    response = api.download(link, headers={"Range": f"bytes={wanted}"})
    assert response.status_code == 206
    assert response.content == WHOLE[first:stop]
    assert response.headers["Content-Range"] == f"bytes {first}-{stop - 1}/203"


@pytest.mark.parametrize("wanted", ["203-", "300-400", "-0", "5-4"])
def test_a_range_that_cannot_be_is_refused(api, link, wanted):
    response = api.download(link, headers={"Range": f"bytes={wanted}"})
    assert response.status_code == 416
    assert response.headers["Content-Range"] == "bytes */203"


@pytest.mark.parametrize("wanted", ["bytes=-", "lines=1-2", "bytes=0-1,5-6"])
def test_a_range_that_is_not_understood_is_ignored(api, link, wanted):
    response = api.download(link, headers={"Range": wanted})
    assert (response.status_code, response.content) == (200, WHOLE)


def test_head_tells_size_and_tag_without_the_bytes(api, link):
    response = api.download(link, "HEAD")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Length"] == "203"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["ETag"] == api.download(link).headers["ETag"]


def test_a_link_refuses_a_bearer_so_that_a_leak_is_noticed(api, link):
    response = api.download(link, headers={"Authorization": "Bearer leaked"})
    assert response.status_code == 400
    assert "InvalidArgument" in response.text


def test_a_link_that_was_changed_opens_nothing(api, link):
    other = api.uploaded(b"other")
    assert api.download(link + "0").status_code == 403
    assert api.download(link.replace("expires=1", "expires=2")).status_code == 403
    path, _, query = link.rpartition("/")[2].partition("?")
    assert api.download(link.replace(path, other)).status_code == 403
    assert api.download(link.partition("?")[0]).status_code == 403
    assert query


def test_a_link_of_a_deleted_file_opens_nothing(api):
    key = api.uploaded(b"x")
    url = api.get_download_url(key).json()["url"]
    api.delete(key)
    response = api.download(url)
    assert (response.status_code, "NoSuchKey" in response.text) == (404, True)


def test_links_expire_as_configured(api, quicksync):
    key = api.uploaded(b"x")
    quicksync.configure(link_seconds=0)
    response = api.download(api.get_download_url(key).json()["url"])
    assert (response.status_code, "expired" in response.text) == (403, True)


def test_links_may_be_of_another_origin(api, quicksync):
    quicksync.configure(link_host="localhost")
    key = api.uploaded(b"x")
    url = api.get_download_url(key).json()["url"]
    assert url.startswith(f"http://localhost:{quicksync.port}/")
    assert api.download(url).content == b"x"


def test_the_log_never_has_a_links_signature(api, quicksync, link):
    api.download(link)
    assert "signature" not in repr(quicksync.requests)
    assert quicksync.requests[-1].sent_bytes == 203

"""No token, API key or link's query ever shows: not in messages, reprs, tracebacks or logs."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_quicksync.client import (
    Credentials,
    HttpOptions,
    QuickSyncClient,
    QuickSyncError,
    RefusedError,
    SessionToken,
    UsageError,
    data_source,
    download,
    upload,
)
from airflow_provider_quicksync.client.http import chunks

from .conftest import AT_ONCE, Connect
from .raw import RawServer, endless, http, reset


def part(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


TOKEN = f"{part({'alg': 'HS256'})}.{part({'sid': 's1', 'exp': 4102444800})}.c2lnbmF0dXJl"
API_KEY = "k3y-0123456789"
SIGNATURE = "5ecretS1gnature=="
QUERY = "X-Amz-Signature=5ecretS1gnature%3D%3D&X-Amz-Expires=3600"
SECRETS = [TOKEN, TOKEN.split(".")[2], API_KEY, "5ecretS1gnature"]

FAILING = {
    "reset": (reset,),
    "closed": (b"",),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n",),
    "cut off": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",),
    "bad chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",),
    "not gzip": (http(200, "plain", Content_Encoding="gzip"),),
    "endless": (endless,),
    "not JSON": (http(200, f"<html>{TOKEN} {API_KEY} {QUERY}</html>"),),
    "another type": (http(200, json.dumps([TOKEN, API_KEY])),),
    "echo in the detail": (
        http(500, json.dumps({"title": API_KEY, "detail": f"you sent Bearer {TOKEN}", "traceId": TOKEN})),
    ),
    "echo in a field": (http(400, json.dumps({"errors": {TOKEN: [f"x{API_KEY}y"]}})),),
    "echo as text": (http(403, f"/key?{QUERY} and https://h/key?{QUERY} for {TOKEN} {API_KEY}"),),
    "echo in a header": (http(401, "", WWW_Authenticate=TOKEN, x_request_id=f"{TOKEN} {API_KEY}"),),
    "redirected": (http(307, "", Location=f"http://127.0.0.2:1/{TOKEN}?{QUERY}&{API_KEY}"),),
    "redirected nowhere": (http(307, "", Location=f"http://[::{TOKEN}?{QUERY}"),),
    "redirected to a file": (http(307, "", Location=f"file:///etc/passwd?{QUERY}"),),
}


LINK_ECHOES = {
    "as text": (http(403, f"no {SIGNATURE} and no 5ecretS1gnature%3D%3D in {QUERY}"),),
    "in the detail": (http(400, json.dumps({"title": SIGNATURE, "detail": QUERY, "traceId": SIGNATURE})),),
    "in a header": (http(404, "", x_request_id=SIGNATURE),),
    "redirected": (
        http(302, "", Location=f"/again?sig={SIGNATURE}1"),
        http(403, f"{SIGNATURE}1 {SIGNATURE}"),
    ),
}


@pytest.fixture
def shown(caplog: pytest.LogCaptureFixture) -> Callable[[BaseException], str]:
    """All that can be seen of an error, and of the logs up to now."""
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "requests", "tenacity", "airflow_provider_quicksync"):
        caplog.set_level(logging.DEBUG, logger=name)

    def show(error: BaseException) -> str:
        text = [str(error), repr(error), repr(vars(error)), repr(pickle.dumps(error)), caplog.text]
        text += ["".join(traceback.format_exception(error))]
        text += [repr(record.args) + record.getMessage() for record in caplog.records]
        assert any(record.name.startswith("urllib3") for record in caplog.records), "the logs are not watched"
        return "\n".join(text)

    return show


def check_one_line_without_secrets(error: QuickSyncError, seen: str) -> None:
    assert len(str(error).splitlines()) == 1
    for secret in SECRETS:
        assert secret not in seen


@pytest.mark.parametrize("replies", FAILING.values(), ids=FAILING)
def test_a_failing_call_shows_no_secret(
    connect: Connect, shown: Callable[[BaseException], str], replies: tuple[Any, ...]
) -> None:
    with RawServer(*replies) as raw:
        client = connect(raw.url, credentials=TOKEN, api_key=API_KEY)
        for call in (
            lambda: client.get_file("k1"),
            lambda: upload(client, data_source(b"data", name="a.csv")),
        ):
            with pytest.raises(QuickSyncError) as caught:
                call()
            check_one_line_without_secrets(caught.value, shown(caught.value))
        assert f"Bearer {TOKEN}" in raw.heads[0]


@pytest.mark.parametrize(
    "replies", [*FAILING.values(), *LINK_ECHOES.values()], ids=[*FAILING, *(f"echo {n}" for n in LINK_ECHOES)]
)
def test_a_failing_link_shows_no_query_and_gets_no_bearer(
    connect: Connect, shown: Callable[[BaseException], str], replies: tuple[Any, ...]
) -> None:
    with RawServer(*replies) as raw:
        client = connect(raw.url, credentials=TOKEN, api_key=API_KEY)
        try:
            with client.open_link(f"{raw.url}/f?{QUERY}", what="x") as link:
                sum(len(chunk) for chunk in itertools.islice(chunks(link, 1 << 16, what="x"), 100))
        except QuickSyncError as error:
            check_one_line_without_secrets(error, shown(error).replace(TOKEN, "").replace(API_KEY, ""))
        else:
            assert link.status_code == 200
    assert raw.heads
    assert not any("authorization" in head.lower() or API_KEY in head for head in raw.heads)


def test_a_link_that_nobody_serves_shows_no_secret(
    connect: Connect, shown: Callable[[BaseException], str]
) -> None:
    client = connect("http://127.0.0.1:1", credentials=TOKEN)
    with pytest.raises(QuickSyncError) as caught, client.open_link(f"http://127.0.0.1:1/f?{QUERY}", what="x"):
        pass
    check_one_line_without_secrets(caught.value, shown(caught.value))


@pytest.mark.parametrize(
    "link", ["", "ftp://h/f", "//h/f", "http://[::1?s=5ecretS1gnature", "http://?5ecretS1gnature"]
)
def test_a_link_that_is_no_url_shows_no_secret(
    connect: Connect, shown: Callable[[BaseException], str], tmp_path: Any, link: str
) -> None:
    info = {"fileKey": "k1", "originalSizeInBytes": 5}
    with RawServer(http(200, json.dumps(info)), http(200, json.dumps({"url": link}))) as raw:
        client = connect(raw.url, credentials=TOKEN, cipher="none")
        with pytest.raises(QuickSyncError) as caught:
            download(client, client.get_file("k1"), str(tmp_path / "f"))
        check_one_line_without_secrets(caught.value, shown(caught.value))
    assert not list(tmp_path.iterdir())


def test_a_good_download_logs_no_query(
    stored: Callable[..., Any], client: QuickSyncClient, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    key = stored(b"12345")["file_key"]
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")
    download(client, client.get_file(key), str(tmp_path / "f"))
    assert "?***" in caplog.text
    assert "signature" not in caplog.text


def test_representations_show_no_secret(connect: Connect) -> None:
    client = connect("http://127.0.0.1:1", credentials=TOKEN, api_key=API_KEY)
    seen = repr(client) + repr(client._transport) + repr(SessionToken(TOKEN)) + str(vars(client))
    for secret in SECRETS:
        assert secret not in seen


@pytest.mark.parametrize("token", ["", "  ", "***", "*****", "to ken", "tökén", "to\nken", "to\x00ken"])
def test_what_is_no_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        SessionToken(token)
    assert "tok" not in str(caught.value).replace("token", "")


@pytest.mark.parametrize("key", ["  ", "k3y-ö123", "k3y\r\nX-Evil: 1", "k3y\x00"])
def test_what_is_no_api_key_is_refused_without_showing_it(connect: Connect, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect("http://127.0.0.1:1", api_key=key)
    assert "k3y" not in str(caught.value)


@pytest.mark.parametrize("bearer", ["", "5ecret\r\nX-Evil: 1", "5ecretö"])
def test_a_bearer_that_would_split_the_header_is_refused_without_showing_it(
    connect: Connect, bearer: str
) -> None:
    class Source(Credentials):
        def bearer(self) -> str:
            return bearer

    with RawServer(http(200, "[]")) as raw, pytest.raises(UsageError) as caught:
        connect(raw.url, credentials=Source()).list_files()
    assert "5ecret" not in "".join(traceback.format_exception(caught.value))
    assert not raw.heads


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.quicksync.me/v1",
        "ftp://h/v1",
        "https:///v1",
        "https://user:5ecret@h/v1",
        "https://h/v1?key=5ecret",
        "https://h/v1#5ecret",
        "https://h:0/v1",
        "https://h:x/v1",
        "https://[::1/v1",
        "https://h/\n5ecret",
    ],
)
def test_a_base_url_that_cannot_be_right_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UsageError, match="must be a URL such as") as caught:
        QuickSyncClient("t", base_url=url)
    assert "5ecret" not in str(caught.value)


def test_a_refused_bearer_is_not_shown(connect: Connect, server: Any, shown: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        connect(server, credentials=TOKEN, retry=AT_ONCE, http=HttpOptions()).list_files()
    check_one_line_without_secrets(caught.value, shown(caught.value))

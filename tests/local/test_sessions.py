"""Who comes in, and the session's rules."""

from __future__ import annotations

import time

import jwt
import pytest

from airflow_provider_quicksync.local import LocalQuickSync


def test_the_current_session_tells_its_rules(api, quicksync):
    quicksync.configure(max_files=7, max_users=2, max_total_megabytes=50)
    session = api.current_session().json()
    assert session.pop("expiry") > time.time()
    assert session.pop("users")[0]["role"] == "host"
    assert session == {
        "id": quicksync.session_id,
        "creatorId": quicksync.creator_id,
        "maxFiles": 7,
        "maxUsers": 2,
        "maxTotalMegaBytes": 50,
        "passwordProtected": False,
        "whiteListAddresses": [],
    }


def test_the_token_is_a_jwt_with_an_end_and_the_session(quicksync):
    claims = jwt.decode(quicksync.token, options={"verify_signature": False})
    assert claims["sid"] == quicksync.session_id
    assert claims["exp"] > time.time()


@pytest.mark.parametrize("sent", [None, "Bearer", "Bearer ", "Basic abc", "Bearer wrong", "Bearer wröng"])
def test_a_missing_or_wrong_bearer_is_refused(api, sent):
    headers = {"Authorization": sent.encode("latin-1") if sent else None}
    for send in (api.list_files, api.current_session):
        response = send(headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert response.json()["status"] == 401


def test_an_expired_session_is_refused_until_a_restart_opens_it_again(api, quicksync):
    key = api.uploaded(b"x")
    quicksync.expire_session()
    response = api.list_files()
    assert response.status_code == 401
    assert "expired" in response.headers["WWW-Authenticate"]
    quicksync.restart()
    assert api.list_files().status_code == 401
    api.bearer = quicksync.token
    assert [file["fileKey"] for file in api.list_files().json()] == [key]


def test_a_session_expires_by_itself(api_of):
    with LocalQuickSync(session_seconds=0.05) as quicksync:
        api, deadline = api_of(quicksync), time.monotonic() + 20
        while api.list_files().status_code != 401:
            assert time.monotonic() < deadline


def test_a_fixed_token_and_fixed_ids_are_kept(api_of):
    names = {"token": "t" * 20, "session_id": "my-session", "creator_id": "me"}
    with LocalQuickSync(**names) as quicksync:
        session = api_of(quicksync).current_session().json()
        assert (quicksync.token, session["id"], session["creatorId"]) == ("t" * 20, "my-session", "me")


def test_a_part_needs_the_api_key_where_one_is_configured(api_of):
    with LocalQuickSync(api_key="key-of-the-project") as quicksync:
        api = api_of(quicksync)
        upload = api.started(b"x")
        assert api.put_part(upload, 1, b"x").status_code == 401
        assert api.put_part(upload, 1, b"x", headers={"X-API-KEY": "wrong"}).status_code == 401
        assert api.put_part(upload, 1, b"x", headers={"X-API-KEY": quicksync.api_key}).status_code == 200


def test_the_number_of_files_is_limited(api, quicksync):
    quicksync.configure(max_files=1)
    key = api.uploaded(b"x")
    response = api.initiate(1, 1)
    assert response.status_code == 422
    assert "1 files" in response.json()["detail"]
    api.delete(key)
    assert api.initiate(1, 1).status_code == 200


def test_the_bytes_of_all_files_are_limited(api, quicksync):
    quicksync.configure(max_total_megabytes=1)
    assert api.initiate(1, 1024 * 1024 - 1).status_code == 200
    assert api.initiate(1, 2).status_code == 422
    assert api.initiate(1, 1).status_code == 200
    quicksync.configure(max_total_megabytes=None, max_files=None)
    assert api.initiate(1, 2**40).status_code == 200

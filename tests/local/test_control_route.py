"""The control route does over HTTP what the Python class does."""

from __future__ import annotations

import pytest


def test_faults_are_switched_on_listed_and_cleared(api):
    fault = {"call": "list_files", "status": 503, "retry_after": 3, "times": 2}
    added = api.control("POST", "/faults", json=fault).json()
    assert (added["status"], added["retry_after"], added["skip"]) == (503, "3", 0)
    assert len(api.control("GET", "/faults").json()) == 1
    response = api.list_files()
    assert (response.status_code, response.headers["Retry-After"]) == (503, "3")
    assert api.control("DELETE", "/faults").status_code == 200
    assert api.list_files().status_code == 200


@pytest.mark.parametrize(
    "fault", [{}, {"call": "odd"}, {"call": "*", "colour": 1}, {"call": "*", "times": "x"}, []]
)
def test_a_fault_that_makes_no_sense_is_refused(api, fault):
    response = api.control("POST", "/faults", json=fault)
    assert (response.status_code, bool(response.json()["detail"])) == (400, True)


def test_the_log_and_the_counters_are_told_and_forgotten(api):
    api.uploaded(b"x" * 100, b"y")
    log = api.control("GET", "/requests").json()
    assert [entry["call"] for entry in log] == ["initiate", "put_part", "put_part", "complete"]
    assert (log[1]["part_number"], log[1]["received_bytes"], log[1]["status"]) == (1, 100, 200)
    assert log[1]["headers"]["Authorization"] == "Bearer ***"
    counters = api.control("GET", "/counters").json()
    assert counters["put_part"]["received_bytes"] == 101
    assert counters["put_part"]["by_status"] == {"200": 2}
    assert counters["put_part"]["most_in_flight"] == 1
    api.control("DELETE", "/requests")
    assert api.control("GET", "/requests").json() == []
    assert api.control("GET", "/counters").json() == {}


def test_settings_are_told_without_secrets_and_changed(api):
    assert api.control("GET", "/settings").json()["max_parts"] == 5
    changed = api.control("PATCH", "/settings", json={"max_files": 0, "api_key": "secret-key"}).json()
    assert (changed["max_files"], changed["api_key"]) == (0, "***")
    assert api.initiate(1, 1).status_code == 422


@pytest.mark.parametrize("change", [{"port": 1}, {"colour": 1}, {"max_parts": -1}, {"max_parts": "x"}])
def test_a_setting_that_cannot_change_is_refused(api, change):
    assert api.control("PATCH", "/settings", json=change).status_code == 400


def test_files_are_told(api):
    key = api.uploaded(b"x")
    assert [file["fileKey"] for file in api.control("GET", "/files").json()] == [key]


def test_it_opens_to_the_servers_bearer_even_when_the_session_expired(api):
    assert api.control("POST", "/session/expire").status_code == 200
    assert api.list_files().status_code == 401
    assert api.control("GET", "/faults").status_code == 200
    api.bearer = "another"
    assert api.control("GET", "/faults").status_code == 401


def test_a_change_by_the_route_is_seen_in_python_and_the_other_way_round(api, quicksync):
    api.control("PATCH", "/settings", json={"max_files": 3})
    assert quicksync.settings.max_files == 3
    quicksync.configure(max_users=4)
    assert api.current_session().json()["maxFiles"] == 3
    assert api.control("GET", "/settings").json()["max_users"] == 4

"""An Airflow connection becomes a client's configuration, or a line that says what is wrong with it."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_quicksync.client import RefusedError, UsageError
from airflow_provider_quicksync.connection import base_url, read_connection
from airflow_provider_quicksync.hooks import QuickSyncHook
from airflow_provider_quicksync.provider_info import CONNECTION_FIELDS

TOKEN = "a-token-of-a-session"
API = "https://api.quicksync.me/v1"
EXTRAS = {
    "api_key": "a-key-of-an-account",
    "session_id": "s-1",
    "session_mode": "join",
    "wallet_private_key": "0x" + "1f" * 32,
    "session_password": "open sesame",
    "session_expiry_seconds": 600,
    "session_capacity": 3,
    "session_whitelist": "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23",
    "uplink_mib_per_second": 12.5,
    "name_cipher": "none",
    "part_size_mib": 7.5,
    "max_concurrency": 3,
    "connect_timeout": 1.5,
    "read_timeout": 20.0,
    "max_attempts": 4,
    "verify": False,
    "web_url": "https://share.example/{file_key}",
    "min_part_size_mib": 0.5,
}


@pytest.fixture
def configured(monkeypatch):
    """Put a connection `it` into the environment, as URI text or as fields, and read it through the hook."""

    def read(connection=None, /, *, settings=None, **fields):
        if connection is None:
            connection = json.dumps({"conn_type": "quicksync", "password": TOKEN, **fields})
        monkeypatch.setenv("AIRFLOW_CONN_IT", connection)
        return QuickSyncHook("it", **(settings or {})).configuration

    return read


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("quicksync://:{t}@127.0.0.1:8484/http", "http://127.0.0.1:8484/v1"),
        ("quicksync://:{t}@quicksync.example/https", "https://quicksync.example/v1"),
        ("quicksync://:{t}@quicksync.example", "https://quicksync.example/v1"),
        ("quicksync://:{t}@quicksync.example/v2", "https://quicksync.example/v2"),
        ("quicksync://http://:{t}@127.0.0.1:8484", "http://127.0.0.1:8484/v1"),
        ("quicksync://http://:{t}@127.0.0.1:8484/v1", "http://127.0.0.1:8484/v1"),
        ("quicksync://https://:{t}@quicksync.example/", "https://quicksync.example/v1"),
        ("quicksync://:{t}@http%3A%2F%2F127.0.0.1%3A8484%2Fapi%2Fv1", "http://127.0.0.1:8484/api/v1"),
        ("quicksync://:{t}@[::1]:8484/http", "http://[::1]:8484/v1"),
        ("quicksync://:{t}@", API),
    ],
)
def test_a_uri(configured, uri, url):
    found = configured(uri.format(t="a%2Ftoken%3D%3D"))
    assert (found.base_url, found.token) == (url, "a/token==")
    assert found.client().base_url == url


@pytest.mark.parametrize(
    ("host", "port", "schema", "url"),
    [
        (None, None, None, API),
        ("", None, "", API),
        ("  ", None, None, API),
        ("https://api.quicksync.me/v1", None, None, API),
        (" https://api.quicksync.me/v1/ ", None, None, API + "/"),
        ("https://api.quicksync.me", None, None, API),
        ("https://api.quicksync.me", 8443, None, "https://api.quicksync.me:8443/v1"),
        ("https://api.quicksync.me:9000", 8443, None, "https://api.quicksync.me:9000/v1"),
        ("https://proxy.example/", None, None, "https://proxy.example/"),
        ("https://proxy.example/quicksync/v1", 8443, None, "https://proxy.example:8443/quicksync/v1"),
        ("api.quicksync.me", None, "https", API),
        ("api.quicksync.me", None, "HTTP", "HTTP://api.quicksync.me/v1"),
        ("api.quicksync.me/v3", None, None, "https://api.quicksync.me/v3"),
        ("localhost:8484", None, "http", "http://localhost:8484/v1"),
        ("localhost", 8484, "http", "http://localhost:8484/v1"),
        ("::1", 8484, "http", "http://[::1]:8484/v1"),
        ("[::1]", 8484, "http", "http://[::1]:8484/v1"),
        ("http://[::1]:8484/v1", None, None, "http://[::1]:8484/v1"),
    ],
)
def test_the_base_url_of_host_port_and_schema(host, port, schema, url):
    assert base_url(host, port, schema) == url


def test_every_extra_from_json(configured):
    found = configured(extra=EXTRAS)
    assert found.settings == EXTRAS
    assert (found.part_size_bytes, found.concurrency) == (7_864_320, 3)
    client = found.client()
    assert (client.known_session_id, client.retry.max_attempts) == ("s-1", 4)
    assert client.limits.min_part_bytes == 512 * 1024


def test_every_extra_as_the_text_that_forms_and_uris_give(configured):
    as_text = {name: str(value) for name, value in EXTRAS.items()}
    assert configured(extra=as_text).settings == EXTRAS
    assert configured(f"quicksync://:{TOKEN}@host/?{urlencode(as_text)}").settings == EXTRAS


def test_the_test_knows_every_field():
    assert set(EXTRAS) == set(CONNECTION_FIELDS)


def test_defaults(configured):
    found = configured()
    client, options = found.client(), found.client()._transport.options
    assert set(found.settings.values()) == {None}
    assert (found.base_url, found.part_size_bytes, found.concurrency) == (API, None, 8)
    assert (options.connect_timeout, options.read_timeout, options.verify) == (10, 60, True)
    assert (client.retry.max_attempts, client.limits.min_part_bytes) == (5, 5 << 20)


def test_a_form_that_was_saved_untouched_is_the_defaults(configured):
    """Forms save their defaults, and empty texts or nulls for the rest."""
    for empty in ("", None, "  "):
        extra = {name: field["schema"].get("default", empty) for name, field in CONNECTION_FIELDS.items()}
        found = configured(extra=extra, host="", schema="", login="")
        assert {name: value for name, value in found.settings.items() if value is not None} == {
            "name_cipher": "qs-share",
            "verify": True,
        }
        assert found.client()._transport.options.verify is True


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("True", True),
        ("false", False),
        (" False ", False),
        ("0", False),
        ("no", False),
        ("1", True),
        ("yes", True),
        ("/etc/ssl/my-ca.pem", "/etc/ssl/my-ca.pem"),
    ],
)
def test_verify(configured, given, meant):
    assert configured(extra={"verify": given}).settings["verify"] == meant


@pytest.mark.parametrize(
    "field",
    ["part_size_mib", "connect_timeout", "read_timeout", "min_part_size_mib", "uplink_mib_per_second"],
)
@pytest.mark.parametrize("value", [0, -1, "0", "much", "1,5", [], True, "nan", "inf"])
def test_a_bad_number(configured, field, value):
    with pytest.raises(UsageError, match=rf"^connection 'it': {field} must be a number above 0$"):
        configured(extra={field: value})


@pytest.mark.parametrize(
    "field", ["max_concurrency", "max_attempts", "session_expiry_seconds", "session_capacity"]
)
@pytest.mark.parametrize("value", [0, -1, 2.5, "2.5", "many", {}, False])
def test_a_bad_count(configured, field, value):
    with pytest.raises(UsageError, match=rf"^connection 'it': {field} must be a (whole )?number above 0$"):
        configured(extra={field: value})


def test_the_form_and_the_code_agree_on_the_most_connections(configured):
    assert configured(extra={"max_concurrency": 64}).concurrency == 64
    with pytest.raises(UsageError, match=r"^connection 'it': max_concurrency must be 64 or less$"):
        configured(extra={"max_concurrency": 65})


@pytest.mark.parametrize(
    "field",
    [
        "api_key",
        "session_id",
        "verify",
        "session_mode",
        "wallet_private_key",
        "session_password",
        "session_whitelist",
    ],
)
@pytest.mark.parametrize("value", [12345678, ["a-secret-in-a-list"], {"a": "secret"}])
def test_a_value_that_must_be_text(configured, field, value):
    with pytest.raises(UsageError) as caught:
        configured(extra={field: value})
    assert str(caught.value) == f"connection 'it': {field} must be text"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"password": None}, "no session token"),
        ({"password": "  "}, "no session token"),
        ({"password": "***"}, "is a mask"),
        ({"password": "sec ret-part"}, "session token has characters"),
        ({"password": "sec\nret-part"}, "session token has characters"),
        ({"host": "ftp://secret-part.example"}, "host must be a URL"),
        ({"host": "https://user:secret-part@host"}, "host must be a URL"),
        ({"host": "https://host/v1?key=secret-part"}, "host must be a URL"),
        ({"host": "http://host:99999"}, "host must be a URL"),
        ({"host": "http://[::1"}, "host must be a URL"),
        ({"host": "http://host:port"}, "host must be a URL"),
        ({"extra": {"name_cipher": "rot13"}}, "name_cipher 'rot13'"),
        ({"extra": {"name_cipher": "no.such.module:Class"}}, "name_cipher 'no.such.module:Class'"),
        ({"extra": {"api_key": "secret-part\nx"}}, "API key"),
    ],
)
def test_what_makes_no_client_names_the_connection(configured, fields, said):
    with pytest.raises(UsageError) as caught:
        configured(**fields).client()
    message = str(caught.value)
    assert message.startswith("connection 'it': ")
    assert said in message
    assert "secret-part" not in message
    assert len(message.splitlines()) == 1


def test_a_ca_file_that_is_not_there_is_named(configured, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    client = configured(extra={"verify": "/no/such/ca.pem"}).client()
    with client, pytest.raises(UsageError, match=r"'/no/such/ca.pem' \(of verify"):
        client.list_files()


def test_a_token_and_a_key_are_taken_without_the_space_around_them(configured):
    found = configured(password=f" {TOKEN}\n", extra={"api_key": " a-key-of-an-account "})
    assert found.secrets == [TOKEN, "a-key-of-an-account"]


def test_a_wallets_key_is_masked_with_and_without_its_prefix(configured):
    found = configured(extra={"wallet_private_key": "0x" + "1f" * 32, "session_password": " open sesame "})
    assert set(found.secrets) == {TOKEN, "0x" + "1f" * 32, "1f" * 32, " open sesame "}


def test_settings_of_the_hook_win(configured):
    found = configured(extra=EXTRAS, settings={"max_concurrency": 5, "verify": True, "read_timeout": None})
    assert found.settings == {**EXTRAS, "max_concurrency": 5, "verify": True}


def test_a_bad_setting_of_the_hook_is_named_too(configured):
    with pytest.raises(UsageError, match="^connection 'it': max_concurrency must be"):
        configured(settings={"max_concurrency": 0})


def test_a_setting_there_is_not(configured):
    with pytest.raises(UsageError, match=r"^there is no setting 'max_concurency'; settings are api_key, "):
        configured(settings={"max_concurency": 5})


def test_an_own_cipher_as_an_object(configured):
    class Reversed:
        needs_session, unique = False, False

        def encrypt(self, name, session_id):
            return name[::-1]

        def decrypt(self, raw_name, session_id):
            return raw_name[::-1]

    assert configured(settings={"name_cipher": Reversed()}).client().write_name("abc") == "cba"


def test_extras_this_version_does_not_know_are_left_alone(configured):
    assert configured(extra={"of_a_later_version": 1}).settings == configured().settings


def test_extras_that_are_no_object():
    class Odd:
        conn_id, host, port, schema, password = "it", None, None, None, TOKEN
        extra_dejson = [1]

    with pytest.raises(UsageError, match="^connection 'it': the extras are not a JSON object$"):
        read_connection(Odd())


def test_nothing_shows_a_secret(configured):
    found = configured(extra=EXTRAS)
    shown = f"{found!r} {found} {found.client()!r} {found.client()._transport!r}"
    assert not [secret for secret in found.secrets if secret in shown]


def test_a_connection_that_is_not_there():
    with pytest.raises(Exception, match="isn't defined") as caught:
        QuickSyncHook("no_such_connection").get_conn()
    assert not isinstance(caught.value, RefusedError)


def test_the_environment_variable_of_the_local_server(quicksync):
    configuration = QuickSyncHook(max_attempts=3).configuration
    assert configuration.base_url == quicksync.url
    assert configuration.token == quicksync.token == BaseHook.get_connection("quicksync_default").password
    assert configuration.settings["session_id"] == quicksync.session_id
    assert configuration.settings["min_part_size_mib"] == 1000 / (1 << 20)

"""How names are encrypted, and read back."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quicksync.client import UsageError, data_source, upload
from airflow_provider_quicksync.client.names import PlainNames, QsShareCipher, name_cipher
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import Connect

SESSION = "65f0c0ffee00000000000001"
WRITTEN_BY_CRYPTO_JS = [
    # CryptoJS 4.2.0: CryptoJS.AES.encrypt(name, session).toString()
    ("report 2026.csv", SESSION, "U2FsdGVkX1+KPPyQjjUSonxlQIiG3JtGGiodd0duRNg="),
    (
        "Übersicht – 日本語 🚀.parquet",  # noqa: RUF001
        "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "U2FsdGVkX19z4a7Y7hY/G2VT4C8QirW0ExdDCtZtNPQ+H1mDmJ+2EY6009qDjeas/7+2TNngA1+M1fjpYhr9Lw==",
    ),
]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl binary")


class Reversed:
    """A cipher as a user would write one."""

    needs_session = False
    unique = False

    def encrypt(self, name: str, session_id: str) -> str:
        return name[::-1]

    def decrypt(self, raw_name: str, session_id: str) -> str:
        return raw_name[::-1]


def openssl(text: str, *options: str) -> str:
    command = [
        "openssl",
        "enc",
        "-aes-256-cbc",
        "-md",
        "md5",
        "-a",
        "-A",
        "-pass",
        f"pass:{SESSION}",
        *options,
    ]
    return subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout.decode()


@given(texts, texts)
def test_a_name_survives_encryption_and_decryption(name: str, session: str) -> None:
    cipher = QsShareCipher()
    assert cipher.decrypt(cipher.encrypt(name, session), session) == name


@given(st.one_of(texts, st.binary(max_size=80).map(lambda data: "U2FsdGVkX1" + data.hex())))
def test_what_was_not_encrypted_is_a_value_error_and_nothing_else(raw_name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any will do)
        QsShareCipher().decrypt(raw_name, SESSION)


def test_the_same_name_is_never_written_twice_in_the_same_way() -> None:
    cipher = QsShareCipher()
    assert len({cipher.encrypt("a.csv", SESSION) for _ in range(50)}) == 50


@pytest.mark.parametrize(("name", "session", "raw_name"), WRITTEN_BY_CRYPTO_JS)
def test_names_written_by_qs_share_are_read(name: str, session: str, raw_name: str) -> None:
    assert QsShareCipher().decrypt(raw_name, session) == name


@needs_openssl
@pytest.mark.parametrize("name", ["a.csv", "sixteen bytes...", "Übersicht 🚀.csv"])
def test_openssl_reads_what_is_written_and_the_other_way_round(name: str) -> None:
    cipher = QsShareCipher()
    assert openssl(cipher.encrypt(name, SESSION), "-d") == name
    assert cipher.decrypt(openssl(name, "-salt"), SESSION) == name


@pytest.mark.parametrize(
    "cipher", [None, "tests.client.missing:Cipher", "nothing", "json:loads", "json:", ":"]
)
def test_an_unknown_cipher_is_wrong_use(cipher: str) -> None:
    with pytest.raises(UsageError, match="name_cipher"):
        name_cipher(cipher)


def test_a_cipher_is_named_by_module_and_class() -> None:
    found = name_cipher("airflow_provider_quicksync.client.names:PlainNames")
    assert isinstance(found, PlainNames)


def test_names_of_another_session_are_shown_raw(server: LocalQuickSync, connect: Connect) -> None:
    upload(connect(server), data_source(b"1", name="mine.csv"))
    upload(connect(server, session_id="another"), data_source(b"2", name="theirs.csv"))
    upload(connect(server, cipher="none"), data_source(b"3", name="plain.csv"))

    mine, theirs, plain = connect(server).list_files()

    assert mine.name == "mine.csv"
    assert mine.raw_name
    assert mine.raw_name.startswith("U2FsdGVkX1")
    assert theirs.name == theirs.raw_name
    assert plain.name == "plain.csv"


def test_a_cipher_of_ones_own_writes_and_reads_names(server: LocalQuickSync, connect: Connect) -> None:
    client = connect(server, cipher=Reversed())
    receipt = upload(client, data_source(b"1", name="abc"))
    file = client.get_file(receipt["file_key"])
    assert (receipt["name"], file.name, file.raw_name) == ("abc", "abc", "cba")


def test_the_session_id_is_asked_once_and_only_where_names_need_it(
    server: LocalQuickSync, connect: Connect
) -> None:
    client = connect(server, session_id=None)
    for _ in range(3):
        receipt = upload(client, data_source(b"1", name="a.csv"))
    client.list_files()
    assert receipt["session_id"] == server.session_id
    assert server.counters()["current_session"]["requests"] == 1

    server.reset_log()
    upload(connect(server, session_id=None, cipher="none"), data_source(b"1", name="a.csv"))
    assert "current_session" not in server.counters()


@pytest.mark.parametrize("answer", [{"status": 404}, {"body": "nulls"}])
def test_without_a_session_id_names_stay_raw_and_it_is_asked_once(
    server: LocalQuickSync, connect: Connect, answer: dict[str, object]
) -> None:
    for name in "abc":
        upload(connect(server), data_source(b"1", name=name))
    server.reset_log()
    server.fail("current_session", times=None, **answer)
    client = connect(server, session_id=None)

    assert all(file.name == file.raw_name for file in client.list_files())
    assert server.counters()["current_session"]["requests"] == 1
    with pytest.raises(UsageError, match="set session_id on the connection"):
        upload(client, data_source(b"1", name="d"))
    assert "initiate" not in server.counters()
    receipt = upload(connect(server, session_id=None, cipher="none"), data_source(b"1", name="d"))
    assert receipt["session_id"] is None


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "a\x00b", "a\x7fb", "a\u2028b", "bad\udcff.csv"])
def test_a_name_that_is_no_line_of_text_is_refused_before_sending(
    server: LocalQuickSync, connect: Connect, name: str
) -> None:
    with pytest.raises(UsageError, match="refused before sending"):
        connect(server).initiate_upload(name, size_bytes=1, total_parts=1)
    assert not server.requests

"""Where requests go and where credentials don't: redirects, cookies, TLS, proxies, connections, timeouts."""

from __future__ import annotations

import datetime
import ipaddress
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_quicksync.client import (
    DamagedError,
    DeadlineError,
    HttpOptions,
    QuickSyncClient,
    Receipt,
    UnreachableError,
    UntrustedError,
    Upload,
    UploadOptions,
    UsageError,
    data_source,
    download,
    upload,
)
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import PART, Connect, calls
from .raw import RawServer, http

EMPTY = http(200, "[]")


# Redirects, cookies, .netrc


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_bearer_is_not_taken_to_another_origin(
    connect: Connect, server: LocalQuickSync, status: int
) -> None:
    with RawServer(EMPTY) as other:
        server.fail("*", status=status, redirect_to=f"{other.url}/v1/buckets", times=None)
        client = connect(server)
        for call in (client.list_files, lambda: client.put_part(Upload("u", "k"), 1, b"1")):
            with pytest.raises(UsageError) as caught:
                call()
            assert f"redirects to {other.url}, and the bearer is not sent on" in str(caught.value)
        assert not other.heads


def test_a_redirect_without_a_place_is_wrong_use(connect: Connect) -> None:
    with RawServer(http(302)) as raw, pytest.raises(UsageError, match="302 Found"):
        connect(raw.url).list_files()


def test_a_link_is_followed_without_the_bearer_and_not_for_ever(connect: Connect) -> None:
    with RawServer(http(302, Location="/there"), http(200, "12345")) as raw:
        with connect(raw.url).open_link(f"{raw.url}/here?s=1", what="x", start=1, end=3) as response:
            assert response.content == b"12345"
        assert [head.split()[1] for head in raw.heads] == ["/here?s=1", "/there"]
        for head in raw.heads:
            assert "authorization" not in head.lower()
            assert "Range: bytes=1-2" in head
    with RawServer(http(302, Location="/round")) as raw:
        round_trip = connect(raw.url).open_link(f"{raw.url}/round", what="x")
        with pytest.raises(DamagedError, match="redirects more than 5 times"), round_trip:
            pass
        assert len(raw.heads) == 6


def test_cookies_are_not_kept(connect: Connect) -> None:
    with RawServer(http(200, "[]", Set_Cookie="session=abc; Path=/")) as raw:
        client = connect(raw.url)
        client.list_files()
        client.list_files()
    assert len(raw.heads) == 2
    assert not any("cookie" in head.lower() for head in raw.heads)


def test_a_netrc_does_not_replace_the_bearer(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    with RawServer(EMPTY) as raw:
        client = connect(raw.url)
        client.list_files()
        with client.open_link(f"{raw.url}/f", what="x"):
            pass
    assert "Authorization: Bearer a.bearer.of-tests" in raw.heads[0]
    assert "authorization" not in raw.heads[1].lower()


# TLS


class Certificates:
    """A CA of its own, and a server on this machine that it vouches for."""

    def __init__(self, folder: Path) -> None:
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA of a test")])
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        ca = self._made(ca_name, ca_name, ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=None))
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        leaf = self._made(name, ca_name, key, ca_key, alternative)
        self.ca_file, chain = folder / "ca.pem", folder / "server.pem"
        self.ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain.write_bytes(private + leaf.public_bytes(serialization.Encoding.PEM))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain)

    def _made(self, subject: Any, issuer: Any, key: Any, signer: Any, extension: Any) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        # Python 3.13 wants to see who signed what.
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        signers = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        usage = {"content_commitment": False, "key_encipherment": False, "data_encipherment": False}
        usage |= {"key_agreement": False, "encipher_only": False, "decipher_only": False}
        usage |= {"digital_signature": True, "key_cert_sign": key is signer, "crl_sign": key is signer}
        builder = builder.add_extension(own, critical=False).add_extension(signers, critical=False)
        return builder.add_extension(x509.KeyUsage(**usage), critical=True).sign(signer, hashes.SHA256())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


def verifying(verify: bool | str) -> HttpOptions:
    return HttpOptions(connect_timeout=5, read_timeout=5, verify=verify)


def test_an_unknown_certificate_is_refused_at_once_with_one_line(
    connect: Connect, certificates: Certificates
) -> None:
    with RawServer(EMPTY, tls=certificates.context) as raw:
        with pytest.raises(UntrustedError, match="is not trusted; set verify to the CA file") as caught:
            connect(raw.url).list_files()
        assert not raw.heads
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("bundle", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_given_ca_file_counts_whatever_the_environment_says(
    connect: Connect, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, bundle: str
) -> None:
    monkeypatch.setenv(bundle, "/nonsense/ca.pem")
    with RawServer(EMPTY, tls=certificates.context) as raw:
        assert connect(raw.url, http=verifying(str(certificates.ca_file))).list_files() == []


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verification_ends_only_by_choice(connect: Connect, certificates: Certificates) -> None:
    with RawServer(EMPTY, tls=certificates.context) as raw:
        assert connect(raw.url, http=verifying(False)).list_files() == []


def test_the_environment_s_ca_file_counts_where_none_is_given(
    connect: Connect, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca_file))
    with RawServer(EMPTY, tls=certificates.context) as raw:
        assert connect(raw.url).list_files() == []


def test_a_ca_file_that_cannot_be_used_is_named_and_not_tried_again(
    connect: Connect, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.pem").write_text("no certificate")
    with RawServer(EMPTY, tls=certificates.context) as raw:
        for name in ("missing.pem", "empty.pem"):
            with pytest.raises(UsageError, match=f"the CA file .*{name}.* can't be used"):
                connect(raw.url, http=verifying(str(tmp_path / name))).list_files()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonsense/ca.pem")
        with pytest.raises(UsageError, match=r"/nonsense/ca\.pem.*REQUESTS_CA_BUNDLE"):
            connect(raw.url).list_files()


def test_plain_http_behind_an_https_url_is_out_of_reach(connect: Connect) -> None:
    with RawServer(EMPTY, reads=False) as raw, pytest.raises(UnreachableError):
        connect(raw.url.replace("http:", "https:")).list_files()


# Proxies


def test_a_proxy_of_the_environment_is_used_unless_it_is_excepted(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(EMPTY) as proxy, RawServer(EMPTY) as direct:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert connect("http://quicksync.invalid/v1").list_files() == []
        assert proxy.heads[0].startswith("GET http://quicksync.invalid/v1/buckets HTTP/1.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert connect(direct.url).list_files() == []
        assert len(proxy.heads) == 1


def test_a_proxy_that_is_away_is_out_of_reach_and_nothing_was_done(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(UnreachableError) as caught:
        connect("http://quicksync.invalid/v1").list_files()
    assert not caught.value.maybe_done


# Connections and timeouts


def opened_connections(caplog: pytest.LogCaptureFixture) -> int:
    return sum("Starting new HTTP" in record.getMessage() for record in caplog.records)


def test_connections_are_kept_and_no_more_than_the_concurrency_are_opened(
    connect: Connect, server: LocalQuickSync, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG, logger="urllib3")
    client = connect(server, http=HttpOptions(connections=3))
    options = UploadOptions(part_size_bytes=PART, concurrency=3)
    for _ in range(3):
        receipt = upload(client, data_source(b"x" * 20 * PART, name="a"), options=options)
    download(client, client.get_file(receipt["file_key"]), str(tmp_path / "f"))
    assert calls(server)["put_part"] == 60
    assert 1 <= opened_connections(caplog) <= 3
    assert "discarding" not in caplog.text
    assert server.counters()["put_part"]["most_in_flight"] <= 3


def test_closing_the_client_closes_its_connections(connect: Connect) -> None:
    closed = threading.Event()

    def keep_alive(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
        if connection.recv(1) == b"":
            closed.set()

    with RawServer(keep_alive) as raw:
        with connect(raw.url) as client:
            client.list_files()
            assert not closed.is_set()
        assert closed.wait(5)


def test_an_answer_that_does_not_come_ends_at_the_read_timeout(connect: Connect) -> None:
    def wait_for_the_end(connection: socket.socket) -> None:
        connection.recv(1)

    with RawServer(wait_for_the_end) as raw:
        client = connect(raw.url, http=HttpOptions(connect_timeout=5, read_timeout=0.05))
        with pytest.raises(DeadlineError, match="no answer in time.*read_timeout") as caught:
            client.list_files()
        assert caught.value.maybe_done
        assert len(raw.heads) == 3


def test_a_body_that_stalls_ends_at_the_read_timeout(connect: Connect) -> None:
    def stall(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[]")
        connection.recv(1)

    with RawServer(stall) as raw:
        client = connect(raw.url, http=HttpOptions(connect_timeout=5, read_timeout=0.05))
        with pytest.raises(DeadlineError, match="no answer in time"):
            client.list_files()


def test_a_slow_uplink_has_the_read_timeout_for_each_block_not_the_connect_timeout(connect: Connect) -> None:
    connect_timeout = 0.1

    def read_late(connection: socket.socket) -> None:
        threading.Event().wait(3 * connect_timeout)
        raw._read_request(connection)
        connection.sendall(http(200, json.dumps({"tag": "t1"})))

    data = bytes(16 << 20)  # more than the sockets' buffers hold
    with RawServer(read_late, reads=False) as raw:
        client = connect(raw.url, http=HttpOptions(connect_timeout=connect_timeout, read_timeout=10))
        assert client.put_part(Upload("u", "k"), 1, data).tag == "t1"
    assert len(raw.bodies) == 1


def test_a_clean_up_does_not_wait_for_long(
    connect: Connect, server: LocalQuickSync, stored: Callable[..., Receipt]
) -> None:
    key = stored()["file_key"]
    server.fail("delete", delay_seconds=0.3, times=None)
    client = connect(server, http=HttpOptions(connect_timeout=0.05, read_timeout=30))
    with pytest.raises(DeadlineError):
        client.remove_unfinished(key)


def test_nobody_there_is_out_of_reach_and_nothing_was_done(connect: Connect) -> None:
    with pytest.raises(UnreachableError, match=r"Connection refused; check the connection's host") as caught:
        connect("http://127.0.0.1:1").list_files()
    assert not caught.value.maybe_done


def test_an_unknown_host_is_out_of_reach(connect: Connect) -> None:
    with pytest.raises(UnreachableError, match=r"check the connection's host and the network"):
        connect("http://quicksync.invalid/v1").list_files()


@pytest.mark.parametrize("option", ["connect_timeout", "read_timeout", "connections"])
@pytest.mark.parametrize("value", [0, -1])
def test_timeouts_and_connections_must_be_positive(option: str, value: int) -> None:
    with pytest.raises(UsageError, match=option):
        HttpOptions(**{option: value})


def test_a_base_url_keeps_its_prefix_and_loses_its_slash() -> None:
    with QuickSyncClient("t", base_url=" https://h:8443/api/v1/ ") as client:
        assert client.base_url == "https://h:8443/api/v1"

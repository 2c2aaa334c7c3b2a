"""Where bearers come from, when they are renewed, and what is said where they can't be."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_provider_quicksync.client import (
    BusyError,
    CreatedSession,
    DamagedError,
    JoinedSession,
    LimitError,
    NotFoundError,
    QuickSyncClient,
    QuickSyncError,
    RefusedError,
    RetryPolicy,
    SessionApi,
    SessionExpiredError,
    SessionRules,
    SessionToken,
    UsageError,
    data_source,
    download,
    upload,
)
from airflow_provider_quicksync.client.credentials import Grant, RenewedBearer, life_seconds
from airflow_provider_quicksync.client.transfer.upload import UploadOptions
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import AT_ONCE, HTTP, PART, Connect, calls
from .raw import RawServer, http

ALICE, BOB, CAROL = (f"{number:064x}" for number in (1, 2, 3))
PASSWORD = "open sesame"
ONE_ATTEMPT = RetryPolicy(max_attempts=1)


def jwt(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


@pytest.fixture
def server() -> Iterator[LocalQuickSync]:
    with LocalQuickSync(min_part_bytes=100) as quicksync:
        yield quicksync


@pytest.fixture
def wallet(server: LocalQuickSync) -> Iterator[Callable[..., SessionApi]]:
    """What a wallet may ask of the server, or of a URL."""
    made: list[SessionApi] = []

    def of(key: str = ALICE, url: str | None = None, **options: Any) -> SessionApi:
        options = {"retry": ONE_ATTEMPT, "http": HTTP, **options}
        made.append(SessionApi(key, base_url=url or server.url, **options))
        return made[-1]

    yield of
    for api in made:
        api.close()


@pytest.fixture
def create(wallet: Callable[..., SessionApi]) -> Callable[..., str]:
    """Create a session as Alice; return its id."""

    def created(**rules: Any) -> str:
        return wallet().create_session(SessionRules(**rules)).session_id

    return created


@pytest.fixture
def joined(
    server: LocalQuickSync, connect: Connect, wallet: Callable[..., SessionApi]
) -> Callable[..., QuickSyncClient]:
    """A client of a session that a wallet joins."""

    def client(session_id: str, key: str = ALICE, **options: Any) -> QuickSyncClient:
        source = JoinedSession(wallet(key), session_id, **options)
        return connect(server, credentials=source, session_id=None)

    return client


class TestLife:
    def test_the_shorter_of_what_the_service_and_the_token_say(self):
        assert life_seconds(jwt(iat=1000, exp=1060), 30) == 30
        assert life_seconds(jwt(iat=1000, exp=1060), 90) == 60
        assert life_seconds("opaque", 30) == 30
        assert life_seconds(jwt(iat=1000, exp=1060)) == 60

    def test_clocks_are_not_compared_where_the_token_has_both_times(self):
        long_ago, far_ahead = jwt(iat=10, exp=70), jwt(iat=9_999_999_940, exp=10_000_000_000)
        assert life_seconds(long_ago) == life_seconds(far_ahead) == 60

    def test_with_an_end_alone_the_clock_here_is_all_there_is(self):
        assert life_seconds(jwt(exp=time.time() + 60)) == pytest.approx(60, abs=5)

    @pytest.mark.parametrize(
        "token",
        ["opaque", "a.b.c", "a.e30.c", jwt(exp="soon"), jwt(exp=True), jwt(exp=None), "e30.W10.x", "é.é.é"],
    )
    def test_what_says_nothing(self, token):
        assert life_seconds(token) is None

    @pytest.mark.parametrize("expires_in", [0, -5])
    def test_no_life_at_all_is_not_believed(self, expires_in):
        assert life_seconds(jwt(exp=1000), expires_in) is None


class TestRenewal:
    @pytest.fixture
    def clock(self, monkeypatch):
        """The monotonic clock, as a list of the one time."""
        now = [1000.0]
        monkeypatch.setattr(
            "airflow_provider_quicksync.client.credentials.time",
            type("Clock", (), {"monotonic": staticmethod(lambda: now[0]), "time": time.time}),
        )
        return now

    @staticmethod
    def source(life: float | None, errors: dict[int, QuickSyncError] | None = None) -> RenewedBearer:
        counter = iter(range(100))

        def obtain() -> Grant:
            number = next(counter)
            if errors and number in errors:
                raise errors[number]
            return Grant(f"bearer-{number}", life)

        return RenewedBearer(obtain)

    @pytest.mark.parametrize(("life", "due"), [(3600, 3540), (40, 30), (2, 1.5)])
    def test_it_is_renewed_before_it_expires(self, clock, life, due):
        source = self.source(life)
        assert source.bearer() == "bearer-0"
        clock[0] += due - 0.01
        assert source.bearer() == "bearer-0"
        clock[0] += 0.02
        assert source.bearer() == source.bearer() == "bearer-1"

    def test_where_nobody_says_how_long_it_lives_it_is_kept_until_it_is_refused(self, clock):
        source = self.source(None)
        assert source.bearer() == "bearer-0"
        clock[0] += 1e9
        assert source.bearer() == "bearer-0"
        assert source.renew("bearer-0") == source.bearer() == "bearer-1"

    def test_one_that_was_renewed_meanwhile_is_not_renewed_again(self, clock):
        source = self.source(60)
        source.bearer()
        assert source.renew("bearer-0") == source.renew("bearer-0") == "bearer-1"

    def test_a_renewal_that_could_wait_does_where_the_service_is_busy(self, clock, caplog):
        source = self.source(100, {1: BusyError("busy now")})
        source.bearer()
        clock[0] += 90
        assert source.bearer() == source.bearer() == "bearer-0"
        assert "busy now; going on with the bearer there is" in caplog.text
        clock[0] += 6
        assert source.bearer() == "bearer-2"

    def test_a_renewal_that_could_wait_does_where_it_is_refused(self, clock, caplog):
        source = self.source(100, {1: LimitError("the session is full")})
        source.bearer()
        clock[0] += 90
        assert source.bearer() == "bearer-0"
        assert "the session is full; going on with the bearer there is" in caplog.text
        with pytest.raises(LimitError):
            source.renew("bearer-0")

    def test_nobody_waits_for_a_renewal_that_could_wait(self, clock):
        asked, may_go_on = threading.Event(), threading.Event()
        grants = iter([Grant("bearer-0", 100), Grant("bearer-1", 100)])

        def obtain() -> Grant:
            grant = next(grants)
            if grant.token == "bearer-1":
                asked.set()
                assert may_go_on.wait(20)
            return grant

        source = RenewedBearer(obtain)
        source.bearer()
        clock[0] += 90
        with ThreadPoolExecutor() as pool:
            renewed = pool.submit(source.bearer)
            assert asked.wait(20)
            assert source.bearer() == "bearer-0"
            may_go_on.set()
            assert renewed.result() == source.bearer() == "bearer-1"

    def test_one_that_is_needed_fails_as_the_service_does_and_may_be_tried_again(self, clock):
        source = self.source(100, {1: BusyError("busy now", maybe_done=True)})
        source.bearer()
        with pytest.raises(BusyError) as caught:
            source.renew("bearer-0")
        assert not caught.value.maybe_done  # the call that needed it was not made
        assert source.renew("bearer-0") == "bearer-2"

    def test_what_is_hopeless_is_asked_once(self, clock):
        source = self.source(100, {1: RefusedError("no", status=401)})
        source.bearer()
        for _ in range(3):
            with pytest.raises(RefusedError, match="^no$"):
                source.renew("bearer-0")
        assert source.bearer() == "bearer-0"

    def test_it_shows_nothing(self, clock):
        source = self.source(60)
        assert source.bearer() not in repr(source)


def test_eight_threads_that_are_refused_at_once_renew_once(server, create, joined):
    client = joined(create())
    client.list_files()
    server.reset_log()
    server.fail("list_files", status=401, times=8, delay_seconds=0.3)
    started = threading.Barrier(8)

    def work(_: int) -> list[Any]:
        started.wait()
        return client.list_files()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [[]] * 8
    assert calls(server) == {"list_files": 16, "join_session": 1}


def test_a_refused_renewal_fails_every_thread_and_is_asked_once(server, create, joined):
    session_id = create()
    client = joined(session_id)
    client.list_files()
    server.expire_session(session_id)
    server.reset_log()
    started = threading.Barrier(8)

    def work(_: int) -> str:
        started.wait()
        with pytest.raises(SessionExpiredError) as caught:
            client.list_files()
        return str(caught.value)

    with ThreadPoolExecutor(8) as pool:
        (said,) = set(pool.map(work, range(8)))
    assert said == (
        f"session {session_id} has ended while it was in use, and its files with it; use a session with a"
        " longer life"
    )
    assert calls(server)["join_session"] == 1


def test_an_upload_goes_on_over_several_bearers(server, create, joined, tmp_path):
    session_id = create()
    server.configure(token_seconds=2)
    client = joined(session_id)
    server.fail("put_part", delay_seconds=0.25, times=None)
    data = bytes(range(256)) * 100
    options = UploadOptions(part_size_bytes=PART, concurrency=2)
    receipt = upload(client, data_source(data, name="a"), options=options)
    assert receipt["session_id"] == session_id
    assert calls(server)["initiate"] == 1
    assert calls(server)["join_session"] >= 2
    server.clear_faults()
    download(client, client.get_file(receipt["file_key"]), str(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == data


def test_a_part_that_is_refused_is_sent_again_with_another_bearer(server, create, joined):
    client = joined(create())
    server.fail("put_part", status=401, part_number=2)
    options = UploadOptions(part_size_bytes=PART, concurrency=3)
    upload(client, data_source(b"x" * 3 * PART, name="a"), options=options)
    assert calls(server)["put_part"] == 4
    assert calls(server)["join_session"] == 2


def test_a_bearer_that_is_refused_twice_ends_it_with_what_to_do(server, create, joined):
    client = joined(create())
    server.fail("list_files", status=401, times=None)
    with pytest.raises(
        RefusedError, match="; check that the session lives long enough, the API key, and what wallet 0x7E5F"
    ):
        client.list_files()
    assert calls(server)["list_files"] == 2


def test_bearers_that_are_born_expired_end_it_too(server, create, joined):
    server.configure(token_seconds=0)
    with pytest.raises(
        SessionExpiredError, match="The token expired .*; check that the session lives long enough"
    ):
        joined(create()).list_files()


def test_a_token_that_was_handed_over_is_not_renewed(server, connect):
    server.expire_session()
    with pytest.raises(SessionExpiredError, match="; put a fresh session token into the connection$"):
        connect(server).list_files()
    assert calls(server) == {"list_files": 1}


def test_a_tokens_end_is_known(server):
    assert SessionToken(server.token).expires_at == pytest.approx(time.time() + 7 * 86400, abs=60)
    assert SessionToken("opaque").expires_at is None


class TestCreated:
    def test_a_session_is_created_once_and_then_joined(self, server, connect, wallet):
        source = CreatedSession(wallet(), SessionRules(password=PASSWORD), "a pipeline")
        client = connect(server, credentials=source, session_id=None)
        assert calls(server) == {}
        upload(client, data_source(b"x", name="a"))
        client.list_files()
        server.fail("list_files", status=401)
        client.list_files()
        assert (calls(server)["create_session"], calls(server)["join_session"]) == (1, 1)
        (session,) = [s for s in server.sessions() if s["id"] == source.session_id]
        assert session["users"][0]["name"] == "a pipeline"

    def test_names_are_encrypted_with_its_id_where_the_service_does_not_tell_it(
        self, server, connect, wallet
    ):
        server.fail("current_session", status=404, times=None)
        source = CreatedSession(wallet(), SessionRules())
        client = connect(server, credentials=source, session_id=None)
        client.list_files()
        raw_name = client.write_name("a.csv")
        reader = connect(server, session_id=source.session_id)
        assert reader._cipher.decrypt(raw_name, source.session_id) == "a.csv"

    def test_the_session_of_an_earlier_attempt_is_found_again(self, server, connect, wallet, create):
        class Memory:
            session_id: str | None = create(password=PASSWORD)

            def entered(self, session_id: str | None) -> None:
                self.session_id = session_id

        memory, rules = Memory(), SessionRules(password=PASSWORD)
        earlier = memory.session_id
        assert CreatedSession(wallet(), rules, memory=memory).enter().session_id == earlier
        server.expire_session(earlier)
        another = CreatedSession(wallet(), rules, memory=memory).enter().session_id
        assert another == memory.session_id != earlier

    def test_bearers_are_told_to_who_masks_them(self, wallet):
        told: list[str] = []
        source = CreatedSession(wallet(), SessionRules(), on_token=told.append)
        first = source.bearer()
        assert told == [first]
        assert told == [first, source.renew(first)]
        assert repr(source.admission) != repr(told)
        assert not any(token in repr(source) + repr(source.admission) for token in told)


class TestLostAnswers:
    def test_a_lost_creation_is_told_and_ends_by_itself(self, server, wallet, caplog):
        server.fail("create_session", cut="answer")
        admission = wallet(retry=AT_ONCE).create_session(SessionRules(expiry_seconds=60))
        (lost,) = [s for s in server.sessions() if s["id"] not in (server.session_id, admission.session_id)]
        assert lost["expires_at"] <= time.time() + 60
        assert "one that nobody can find may stay, empty, until it expires after 60 s" in caplog.text

    def test_one_that_had_no_effect_is_not_told(self, server, wallet, caplog):
        server.fail("create_session", status=429)
        server.fail("wallet_verify", cut="answer")
        wallet(retry=AT_ONCE).create_session(SessionRules())
        assert len(server.sessions()) == 2
        assert "nobody can find" not in caplog.text

    def test_a_creation_that_tells_no_more_than_the_id_is_joined(self, server, wallet):
        server.fail("create_session", null_fields=("credentials",), body="nulls")
        admission = wallet().create_session(SessionRules(password=PASSWORD))
        assert admission.token
        assert {s["id"] for s in server.sessions()} == {server.session_id, admission.session_id}

    def test_a_creation_without_an_id_is_damaged(self, server, wallet, caplog):
        server.fail("create_session", body="nulls")
        with pytest.raises(DamagedError, match="^create a session as wallet .* without sessionId"):
            wallet().create_session(SessionRules())
        assert "nobody can find" in caplog.text

    @pytest.mark.parametrize("call", ["delete_session", "disconnect_session"])
    def test_an_end_whose_answer_was_lost_has_worked(self, server, create, joined, call):
        session_id = create()
        client = joined(session_id)
        server.fail(call, cut="answer")
        getattr(client, call)()
        users = {s["id"]: s["users"] for s in server.sessions()}
        assert users.get(session_id, []) == [] or call == "disconnect_session"

    def test_another_end_is_refused(self, create, joined):
        session_id = create()
        client = joined(session_id)
        client.delete_session()
        with pytest.raises((NotFoundError, SessionExpiredError)):
            client.delete_session()


class TestSessionCalls:
    def test_rules_that_are_asked_for_are_the_sessions(self, server, wallet):
        bob = wallet(BOB)
        rules = SessionRules(expiry_seconds=60, capacity=3, password=PASSWORD, whitelist=(bob.address,))
        admission = wallet().create_session(rules, "a pipeline")
        session = admission.session
        assert (session.session_id, session.max_users, session.password_protected) == (
            admission.session_id,
            3,
            True,
        )
        assert 50 < admission.expires_in <= 60
        assert (admission.role, bob.join_session(admission.session_id, PASSWORD).role) == ("host", "member")
        told = json.dumps(admission.as_dict())
        assert admission.token not in told
        assert PASSWORD not in told + repr(rules) + repr(admission)

    def test_only_the_host_deletes(self, server, create, joined):
        session_id = create()
        with pytest.raises(
            RefusedError, match="403 .*; only its host can delete it: the wallet that created"
        ):
            joined(session_id, BOB).delete_session()
        joined(session_id).delete_session()
        assert [s["id"] for s in server.sessions()] == [server.session_id]

    def test_who_leaves_is_out(self, server, create, joined):
        session_id = create()
        client = joined(session_id, BOB)
        client.disconnect_session()
        (session,) = [s for s in server.sessions() if s["id"] == session_id]
        assert [user["role"] for user in session["users"]] == ["host"]

    def test_a_token_of_another_session_is_noticed(self, server, connect):
        with pytest.raises(UsageError, match=f"is of session {server.session_id}, not of session another: "):
            connect(server, session_id="another").current_session()

    @pytest.mark.parametrize(
        ("rules", "said"),
        [
            ({"expiry_seconds": 0}, "expiry_seconds must be a whole number above 0, not 0"),
            ({"expiry_seconds": None}, "expiry_seconds must be a whole number above 0, not None"),
            ({"capacity": -1}, "capacity must be a whole number above 0, not -1"),
            ({"capacity": True}, "capacity must be a whole number above 0, not True"),
            ({"whitelist": ("me",)}, "whitelist: 'me' is no Ethereum address"),
        ],
    )
    def test_rules_that_cannot_be_are_refused_here(self, rules, said):
        with pytest.raises(UsageError, match=said):
            SessionRules(**rules)


@pytest.mark.parametrize(
    ("case", "kind", "said"),
    [
        ("password", RefusedError, "The password of the session is wrong .*; check the session's password"),
        (
            "no password",
            RefusedError,
            "The password of the session is wrong .*; check the session's password",
        ),
        ("whitelist", RefusedError, "The wallet is not on the whitelist .*, and that its whitelist has the"),
        ("unknown", NotFoundError, "404 .*There is no such session.*; check the session id, and that the"),
        ("expired", NotFoundError, "404 .*The session has ended.*; check the session id, and that the sess"),
        ("full", LimitError, "422 .*full: it allows 1 users.*; check that the session has room"),
        ("422", LimitError, "422 .*; check that the session has room"),
        ("verify", UsageError, "^prove wallet 0x2B5A.*: 400 .*; check wallet_private_key"),
    ],
)
def test_a_door_that_stays_closed_says_why(server, wallet, create, case, kind, said):
    rules: dict[str, Any] = {
        "password": {"password": PASSWORD},
        "no password": {"password": PASSWORD},
        "whitelist": {"whitelist": ("0x" + "0" * 40,)},
        "full": {"capacity": 1},
    }.get(case, {})
    session_id = create(**rules)
    password = "a-wrong-password" if case == "password" else None
    if case == "expired":
        server.expire_session(session_id)
    if case == "422":
        server.fail("join_session", status=422)
    if case == "verify":
        server.fail("wallet_verify", status=400)
    with pytest.raises(kind, match=said) as caught:
        wallet(BOB).join_session("unknown" if case == "unknown" else session_id, password)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "a-wrong-password" not in message
    assert PASSWORD not in message


def test_a_creation_that_is_refused_says_why(server, wallet):
    with pytest.raises(
        LimitError, match=r"422 .*rules.userCapacity: .* from 1 to 100.*; check the rules that"
    ):
        wallet().create_session(SessionRules(capacity=101))
    server.configure(api_key="the-key-of-the-account")
    with pytest.raises(RefusedError, match="401 .*X-API-KEY.*; check the API key, and that the account may"):
        wallet().create_session(SessionRules())
    wallet(api_key="the-key-of-the-account").create_session(SessionRules())


def test_no_echo_shows_a_secret(wallet, caplog):
    """A service that repeats what it was sent, at each step of the way in."""
    caplog.set_level(logging.DEBUG)
    key, secret = BOB, "a-password-to-hide"
    nonce = http(200, json.dumps({"message": "sign this"}))
    verified = http(200, json.dumps({"token": jwt(sub="w", exp=time.time() + 60)}))
    signature = wallet(key)._wallet.sign("sign this")
    echoes = [
        (nonce, http(400, json.dumps({"detail": f"not {signature}"}))),
        (nonce, http(200, json.dumps({"token": f"bad {secret}\n"}))),
        (nonce, verified, http(422, json.dumps({"errors": {"password": [f"{secret} is too short"]}}))),
        (nonce, verified, http(404, secret)),
        (nonce, verified, http(307, "", Location=f"http://{secret}.example/")),
        (nonce, verified, http(200, json.dumps({"sessionId": [secret]}))),
    ]
    for replies in echoes:
        with RawServer(*replies) as raw, pytest.raises(QuickSyncError) as caught:
            wallet(key, raw.url).join_session("s1", secret)
        shown = f"{caught.value} {caught.value!r} {caplog.text}"
        assert not [hidden for hidden in (secret, signature, signature[2:], key) if hidden in shown]
        assert len(str(caught.value).splitlines()) == 1


def test_the_way_in_asks_nothing_with_the_wrong_bearer(wallet):
    token = jwt(sub="w")
    nonce = http(200, json.dumps({"message": "sign this"}))
    verified = http(200, json.dumps({"token": token}))
    welcome = http(200, json.dumps({"sessionId": "s1", "credentials": {"token": "t"}}))
    with RawServer(nonce, verified, welcome) as raw:
        admission = wallet(BOB, raw.url).join_session("s1")
    assert (admission.session_id, admission.expires_in, admission.session.max_files) == ("s1", None, None)
    sent = ["authorization" in head.lower() for head in raw.heads]
    assert sent == [False, False, True]
    assert f"Bearer {token}" in raw.heads[2]

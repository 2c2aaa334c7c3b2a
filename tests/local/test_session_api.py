"""Wallet proofs, and sessions created, joined, left and ended."""

from __future__ import annotations

import time

import jwt
import pytest

from airflow_provider_quicksync.local import LocalQuickSync

coincurve = pytest.importorskip("coincurve", reason="the extra [wallet] is not installed")
keccak = pytest.importorskip("Crypto.Hash.keccak", reason="the extra [wallet] is not installed")


class Wallet:
    """An Ethereum key that proves itself to a server."""

    def __init__(self, number: int) -> None:
        self.key = coincurve.PrivateKey(number.to_bytes(32, "big"))
        point = self.key.public_key.format(compressed=False)[1:]
        self.address = "0x" + _hash(point)[-20:].hex()

    def sign(self, message: str) -> str:
        content = message.encode()
        digest = _hash(b"\x19Ethereum Signed Message:\n" + str(len(content)).encode() + content)
        raw = self.key.sign_recoverable(digest, hasher=None)
        return "0x" + raw[:64].hex() + f"{raw[64] + 27:02x}"

    def proof(self, api) -> dict[str, str]:
        message = api.send("GET", "/wallet-proof/nonce", headers={"Authorization": None}).json()["message"]
        return {"walletAddress": self.address, "message": message, "signature": self.sign(message)}

    def bearer(self, api) -> str:
        return verify(api, self.proof(api)).json()["token"]


def _hash(content: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=content).digest()


def verify(api, proof, chain="Ethereum"):
    return api.send(
        "POST", f"/wallet-proof/verify?chain={chain}", json=proof, headers={"Authorization": None}
    )


def as_bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def alice():
    return Wallet(1)


@pytest.fixture
def bob():
    return Wallet(2)


@pytest.fixture
def create(api, alice):
    def create(wallet=alice, identity=None, **rules):
        body = {"identity": identity or {"name": "a pipeline"}, "rules": rules}
        return api.send("POST", "/session", json=body, headers=as_bearer(wallet.bearer(api)))

    return create


@pytest.fixture
def join(api):
    def join(wallet, session_id, password=None):
        body = {"sessionId": session_id, "password": password}
        return api.send("POST", "/session/join", json=body, headers=as_bearer(wallet.bearer(api)))

    return join


def token_of(response):
    assert response.status_code == 200, response.text
    return response.json()["credentials"]["token"]


class TestWalletProof:
    def test_a_published_signature_is_recognised(self):
        from airflow_provider_quicksync.local.wallets import recovered_address

        signature = (
            "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd"
            "6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c"
        )
        address = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
        assert recovered_address("Some data", signature) == address.lower()

    def test_it_gives_a_short_lived_bearer(self, api, alice):
        claims = jwt.decode(alice.bearer(api), options={"verify_signature": False})
        assert claims["sub"] == alice.address
        assert 0 < claims["exp"] - time.time() <= 600

    def test_a_proof_counts_once(self, api, alice):
        proof = alice.proof(api)
        assert verify(api, proof).status_code == 200
        assert verify(api, proof).status_code == 400

    def test_another_key_is_refused(self, api, alice, bob):
        proof = {**alice.proof(api), "walletAddress": bob.address}
        assert "not of this wallet" in verify(api, proof).json()["detail"]

    @pytest.mark.parametrize(
        "change",
        [
            {"signature": "0x12"},
            {"signature": "zz" * 65},
            {"signature": "00" * 65},
            {"signature": None},
            {"walletAddress": "0x12"},
            {"walletAddress": None},
            {"message": "a message of mine"},
        ],
    )
    def test_a_broken_proof_is_refused(self, api, alice, change):
        response = verify(api, {**alice.proof(api), **change})
        assert (response.status_code, response.json()["status"]) == (400, 400)

    def test_another_chain_is_refused(self, api, alice):
        assert verify(api, alice.proof(api), chain="Solana").status_code == 400
        assert verify(api, alice.proof(api), chain="").status_code == 400


class TestCreate:
    def test_the_wallet_is_the_host_of_a_session_of_its_own(self, api, alice, create):
        answer = create(userCapacity=3, expiryDurationInSeconds=60).json()
        assert 50 < answer["expiresIn"] <= 60
        assert answer["credentials"]["pseudonym"] == "a pipeline"
        assert answer["credentials"]["role"] == "host"
        assert (answer["rules"]["maxUsers"], answer["rules"]["passwordProtected"]) == (3, False)
        api.bearer = answer["credentials"]["token"]
        session = api.current_session().json()
        assert (session["id"], session["maxUsers"]) == (answer["sessionId"], 3)
        assert [user["address"] for user in session["users"]] == [alice.address]

    def test_its_token_expires_with_it(self, create):
        answer = create(expiryDurationInSeconds=60).json()
        claims = jwt.decode(answer["credentials"]["token"], options={"verify_signature": False})
        assert claims["exp"] == answer["rules"]["expiry"]

    def test_files_are_seen_by_its_bearers_only(self, api, quicksync, create):
        own = api.uploaded(b"own")
        api.bearer = token_of(create())
        theirs = api.uploaded(b"theirs")
        assert [file["fileKey"] for file in api.list_files().json()] == [theirs]
        upload = {"fileKey": own, "uploadId": quicksync.files()[0]["upload_id"]}
        for response in (api.get_file(own), api.delete(own), api.get_download_url(own)):
            assert response.status_code == 404
        assert api.put_part(upload, 1, b"x").status_code == 404
        assert api.complete(upload, []).status_code == 404
        api.bearer = quicksync.token
        assert [file["fileKey"] for file in api.list_files().json()] == [own]

    def test_limits_count_each_session_alone(self, api, quicksync, create):
        quicksync.configure(max_files=1)
        api.uploaded(b"x")
        api.bearer = token_of(create())
        assert api.initiate(1, 1).status_code == 200
        assert api.initiate(1, 1).status_code == 422

    @pytest.mark.parametrize(
        "rules",
        [
            {"userCapacity": 0},
            {"userCapacity": 101},
            {"userCapacity": "2"},
            {"expiryDurationInSeconds": -1},
            {"expiryDurationInSeconds": 10**9},
            {"whiteListAddresses": ["me"]},
            {"whiteListAddresses": "0x"},
            {"allowOnlyWhitelistedAddresses": "yes"},
            {"password": 7},
        ],
    )
    def test_rules_that_cannot_be_are_refused(self, create, rules):
        response = create(**rules)
        assert response.status_code == 422
        assert next(iter(response.json()["errors"])).endswith(next(iter(rules)))

    def test_another_ones_address_is_refused(self, create, alice, bob):
        assert create(identity={"chainAddress": bob.address}).status_code == 422
        assert create(identity={"chainAddress": alice.address.upper().replace("X", "x")}).status_code == 200

    def test_it_needs_the_api_key_where_one_is_configured(self, api, quicksync, alice):
        quicksync.configure(api_key="key-of-the-project")
        headers = as_bearer(alice.bearer(api))
        assert api.send("POST", "/session", json={}, headers=headers).status_code == 401
        headers["X-API-KEY"] = "key-of-the-project"
        assert api.send("POST", "/session", json={}, headers=headers).status_code == 200

    def test_a_session_bearer_is_no_wallet_bearer_nor_the_other_way_round(self, api, alice):
        assert api.send("POST", "/session", json={}).status_code == 401
        api.bearer = alice.bearer(api)
        assert api.list_files().status_code == 401

    def test_a_wallet_bearer_expires(self, api, quicksync, alice):
        quicksync.configure(wallet_seconds=0)
        response = api.send("POST", "/session", json={}, headers=as_bearer(alice.bearer(api)))
        assert (response.status_code, "expired" in response.headers["WWW-Authenticate"]) == (401, True)


class TestJoin:
    def test_a_member_sees_the_sessions_files(self, api, bob, create, join):
        created = create()
        api.bearer = token_of(created)
        key = api.uploaded(b"x")
        joined = join(bob, created.json()["sessionId"])
        assert [user["role"] for user in joined.json()["users"]] == ["host", "member"]
        api.bearer = token_of(joined)
        assert api.content(key) == b"x"

    def test_a_wallet_that_joins_again_is_the_same_user(self, api, alice, create, join):
        created = create(userCapacity=1).json()
        again = join(alice, created["sessionId"]).json()
        assert again["credentials"]["id"] == created["credentials"]["id"]
        assert again["credentials"]["role"] == "host"
        for answer in (created, again):
            api.bearer = answer["credentials"]["token"]
            assert api.list_files().status_code == 200

    def test_the_servers_own_session_can_be_joined(self, api, quicksync, bob, join):
        key = api.uploaded(b"x")
        api.bearer = token_of(join(bob, quicksync.session_id))
        assert api.get_file(key).status_code == 200

    def test_the_password_is_checked(self, bob, create, join):
        created = create(password="open sesame").json()
        assert created["rules"]["passwordProtected"] is True
        for wrong in (None, "", "wrong"):
            response = join(bob, created["sessionId"], wrong)
            assert (response.status_code, "password" in response.json()["detail"]) == (401, True)
        assert join(bob, created["sessionId"], "open sesame").status_code == 200

    def test_the_whitelist_is_checked(self, alice, bob, create, join):
        closed = create(allowOnlyWhitelistedAddresses=True, whiteListAddresses=[]).json()["sessionId"]
        response = join(bob, closed)
        assert (response.status_code, "whitelist" in response.json()["detail"]) == (401, True)
        assert join(alice, closed).status_code == 200
        listed = [bob.address.upper().replace("X", "x")]
        opened = create(allowOnlyWhitelistedAddresses=True, whiteListAddresses=listed).json()
        assert opened["rules"]["whiteListAddresses"] == listed
        assert join(bob, opened["sessionId"]).status_code == 200

    def test_a_full_session_is_refused_until_someone_leaves(self, api, bob, create, join):
        session_id = create(userCapacity=2).json()["sessionId"]
        api.bearer = token_of(join(bob, session_id))
        carol = Wallet(3)
        response = join(carol, session_id)
        assert (response.status_code, "full" in response.json()["detail"]) == (422, True)
        assert api.send("POST", "/session/disconnect").status_code == 200
        assert join(carol, session_id).status_code == 200

    def test_an_unknown_or_ended_session_is_not_there(self, quicksync, bob, create, join):
        assert join(bob, "unknown").status_code == 404
        assert join(bob, None).status_code == 422
        session_id = create().json()["sessionId"]
        quicksync.expire_session(session_id)
        assert join(bob, session_id).status_code == 404

    def test_bearers_may_live_shorter_than_their_session(self, api, quicksync, alice, create, join):
        session_id = create().json()["sessionId"]
        quicksync.configure(token_seconds=0)
        api.bearer = token_of(join(alice, session_id))
        assert api.list_files().status_code == 401
        quicksync.configure(token_seconds=None)
        api.bearer = token_of(join(alice, session_id))
        assert api.list_files().status_code == 200


class TestEnd:
    def test_who_disconnects_is_out_and_the_old_bearer_stays_out(self, api, alice, create, join):
        created = create()
        api.bearer = token_of(created)
        assert api.send("POST", "/session/disconnect").status_code == 200
        assert api.list_files().status_code == 401
        again = token_of(join(alice, created.json()["sessionId"]))
        assert api.list_files().status_code == 401
        api.bearer = again
        assert api.current_session().json()["creatorId"] == created.json()["credentials"]["id"]

    def test_only_the_host_deletes_a_session(self, api, bob, create, join):
        created = create()
        api.bearer = token_of(join(bob, created.json()["sessionId"]))
        assert api.send("DELETE", "/session/current").status_code == 403

    def test_a_deleted_session_takes_its_files_with_it(self, api, quicksync, create):
        api.bearer = token_of(create())
        link = api.get_download_url(api.uploaded(b"x")).json()["url"]
        assert api.send("DELETE", "/session/current").status_code == 200
        assert quicksync.files() == []
        assert list((quicksync.root / "parts").iterdir()) == []
        assert api.download(link).status_code == 404
        assert (api.current_session().status_code, api.list_files().status_code) == (404, 401)

    def test_the_servers_own_session_is_made_again_by_a_restart(self, api, quicksync):
        api.uploaded(b"x")
        assert api.send("DELETE", "/session/current").status_code == 200
        assert api.list_files().status_code == 401
        quicksync.restart()
        api.bearer = quicksync.token
        assert api.list_files().json() == []

    def test_a_session_expires_with_its_bearers(self, api, quicksync, create):
        created = create()
        api.bearer = token_of(created)
        quicksync.expire_session(created.json()["sessionId"])
        assert (api.current_session().status_code, api.list_files().status_code) == (401, 401)
        api.bearer = quicksync.token
        assert api.list_files().status_code == 200


def test_sessions_survive_a_restart_and_ended_ones_are_swept(api, quicksync, create):
    kept, ended = create(), create(password="x")
    api.bearer = token_of(ended)
    api.uploaded(b"x")
    quicksync.expire_session(ended.json()["sessionId"])
    quicksync.restart()
    api.bearer = token_of(kept)
    assert api.current_session().json()["id"] == kept.json()["sessionId"]
    assert [session["id"] for session in quicksync.sessions()].count(ended.json()["sessionId"]) == 0
    assert quicksync.files() == []


def test_an_answer_lost_after_creation_leaves_the_session(api, quicksync, alice):
    quicksync.fail("create_session", cut="answer")
    with pytest.raises(OSError, match="Connection"):
        api.send("POST", "/session", json={}, headers=as_bearer(alice.bearer(api)))
    assert len(api.control("GET", "/sessions").json()) == 2


def test_without_the_wallet_extra_it_says_what_is_missing(api, alice, monkeypatch):
    monkeypatch.setattr("airflow_provider_quicksync.local.wallet_api.is_available", lambda: False)
    response = verify(api, alice.proof(api))
    assert (response.status_code, "[wallet]" in response.json()["detail"]) == (501, True)


def test_two_servers_do_not_know_each_others_bearers(api, api_of, quicksync):
    with LocalQuickSync() as other:
        stranger = api_of(other)
        stranger.bearer = quicksync.token
        assert stranger.list_files().status_code == 401
        assert api.list_files().status_code == 200

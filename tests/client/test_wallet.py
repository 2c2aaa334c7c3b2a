"""An Ethereum wallet: its address, what it signs, and what is no key."""

from __future__ import annotations

import sys

import pytest

from airflow_provider_quicksync.client import UsageError
from airflow_provider_quicksync.client.wallet import Wallet, check_address
from airflow_provider_quicksync.local.wallets import recovered_address

# Published in the documentation of web3.js for "Some data".
KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
SIGNATURE = (
    "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd"
    "6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c"
)
CURVE_ORDER = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"


@pytest.mark.parametrize("key", [KEY, f"0x{KEY}", f" 0x{KEY.upper()}\n"])
def test_a_published_key_has_its_published_address_and_signature(key: str) -> None:
    wallet = Wallet(key)
    assert wallet.address == ADDRESS
    assert wallet.sign("Some data") == SIGNATURE


@pytest.mark.parametrize("message", ["", "ä\n\nNonce: 1", "x" * 1000])
def test_any_message_is_signed_so_that_the_signer_is_recognised(message: str) -> None:
    for number in (1, 2, 3):
        wallet = Wallet(f"{number:064x}")
        assert recovered_address(message, wallet.sign(message)) == wallet.address.lower()


def test_it_shows_its_address_and_never_its_key() -> None:
    assert repr(Wallet(KEY)) == f"Wallet({ADDRESS})"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "is not 64 hexadecimal digits"),
        ("0x12", "is not 64 hexadecimal digits"),
        (KEY + "00", "is not 64 hexadecimal digits"),
        (KEY[:-1] + "g", "is not 64 hexadecimal digits"),
        (ADDRESS, "is not 64 hexadecimal digits"),
        ("abandon ability able about above absent absorb abstract absurd", "is not 64 hexadecimal digits"),
        ("***", r"is a mask \(\*\*\*\)"),
        ("00" * 32, "is out of the range"),
        (CURVE_ORDER, "is out of the range"),
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(key: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"^the wallet's private key {said}") as caught:
        Wallet(key)
    assert len(str(caught.value).splitlines()) == 1
    assert not key or key == "***" or key not in str(caught.value)


@pytest.mark.parametrize("missing", ["coincurve", "Crypto.Hash"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=r"pip install 'airflow-provider-quicksync\[wallet\]'$"):
        Wallet(KEY)


@pytest.mark.parametrize("address", ["", "me", ADDRESS[:-1], ADDRESS[2:], ADDRESS + "0", None, 7])
def test_what_is_no_address(address: str) -> None:
    check_address("x", ADDRESS)
    with pytest.raises(UsageError, match="^x: .* is no Ethereum address"):
        check_address("x", address)

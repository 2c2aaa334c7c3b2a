"""Wallet proofs: nonces, and Ethereum's personal_sign checked for real (extra ``[wallet]``)."""

from __future__ import annotations

import re
import secrets
import time
from importlib.util import find_spec

from airflow_provider_quicksync.local.tokens import Refused

CHAIN = "Ethereum"
NONCE_SECONDS = 300
_MOST_NONCES = 10_000
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SIGNATURE = re.compile(r"(0x)?[0-9a-fA-F]{130}")


class WalletProofs:
    """The nonces that were given out; each proves one wallet once."""

    def __init__(self) -> None:
        self._expires_at: dict[str, float] = {}

    def new_message(self) -> tuple[str, str]:
        """Return a nonce, and the message with it that a wallet has to sign."""
        now = time.time()
        self._expires_at = {text: end for text, end in self._expires_at.items() if end > now}
        if len(self._expires_at) >= _MOST_NONCES:
            del self._expires_at[next(iter(self._expires_at))]
        nonce = secrets.token_hex(16)
        message = f"Sign this message to prove that this wallet is yours.\n\nNonce: {nonce}"
        self._expires_at[message] = now + NONCE_SECONDS
        return nonce, message

    def check(self, address: str, message: str, signature: str) -> None:
        """Accept a proof and use its nonce up; :raises Refused: with the reason."""
        if not is_address(address):
            raise Refused("The wallet address is not an Ethereum address.")
        if self._expires_at.pop(message, 0) <= time.time():
            raise Refused("The message is unknown, used or too old; ask for a new nonce.")
        if recovered_address(message, signature).lower() != address.lower():
            raise Refused("The signature is not of this wallet.")


def is_available() -> bool:
    """Whether signatures can be checked here."""
    return find_spec("coincurve") is not None and find_spec("Crypto") is not None


def is_address(text: object) -> bool:
    """Whether *text* has the form of an Ethereum address."""
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None


def recovered_address(message: str, signature: str) -> str:
    """Return the address whose key made *signature* (65 bytes in hex: r, s, v) of *message* (EIP-191)."""
    import coincurve

    if not _SIGNATURE.fullmatch(signature):
        raise Refused("The signature is not 65 bytes in hex.")
    raw = bytes.fromhex(signature.removeprefix("0x"))
    recovery = raw[64] - 27 if raw[64] >= 27 else raw[64]
    content = message.encode()
    prefix = b"\x19Ethereum Signed Message:\n" + str(len(content)).encode()
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            raw[:64] + bytes([recovery]), _keccak(prefix + content), hasher=None
        )
    except ValueError as error:
        raise Refused("The signature is not valid.") from error
    return "0x" + _keccak(key.format(compressed=False)[1:])[-20:].hex()


def _keccak(content: bytes) -> bytes:
    from Crypto.Hash import keccak

    return keccak.new(digest_bits=256, data=content).digest()

"""
An Ethereum wallet that proves itself: its address, and personal_sign (EIP-191).

Needs the extra ``[wallet]``, imported when a wallet is made. The private key is kept in memory only, is never
sent, and shows in no message.
"""

from __future__ import annotations

import re
from typing import Any

from .errors import UsageError

MISSING_EXTRA = "a wallet needs more libraries: pip install 'airflow-provider-quicksync[wallet]'"
_KEY = re.compile(r"(?:0x)?([0-9a-fA-F]{64})")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


class Wallet:
    """
    A wallet, made of its private key.

    :param private_key: 64 hexadecimal digits, with or without ``0x`` before them.
    :raises UsageError: it is no key, or the extra is missing.
    """

    def __init__(self, private_key: str) -> None:
        self._key = _private_key(private_key)
        self.address = _checksummed(_keccak(self._key.public_key.format(compressed=False)[1:])[-20:].hex())

    def __repr__(self) -> str:
        return f"Wallet({self.address})"

    def sign(self, message: str) -> str:
        """The personal_sign signature of a message: r, s and v (27 or 28) in hex."""
        content = message.encode()
        digest = _keccak(b"\x19Ethereum Signed Message:\n" + str(len(content)).encode() + content)
        raw: bytes = self._key.sign_recoverable(digest, hasher=None)
        return "0x" + raw[:64].hex() + f"{raw[64] + 27:02x}"


def check_address(what: str, address: str) -> None:
    """:raises UsageError: it doesn't have the form of an Ethereum address."""
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise UsageError(
            f"{what}: {str(address)[:60]!r} is no Ethereum address (0x and 40 hexadecimal digits)"
        )


def _private_key(text: str) -> Any:
    try:
        import coincurve
        from Crypto.Hash import keccak  # noqa: F401 - asked for here, so that a missing one is said at once
    except ImportError:
        raise UsageError(MISSING_EXTRA) from None
    text = text.strip()
    if set(text) == {"*"}:
        raise UsageError("the wallet's private key is a mask (***), not a key: enter it again")
    found = _KEY.fullmatch(text)
    if not found:
        raise UsageError(
            "the wallet's private key is not 64 hexadecimal digits (a seed phrase, an address and a keystore"
            " file are no keys): copy it again"
        )
    try:
        return coincurve.PrivateKey(bytes.fromhex(found[1]))
    except ValueError:
        raise UsageError("the wallet's private key is out of the range of Ethereum's keys") from None


def _checksummed(address: str) -> str:
    """An address with the capitals of EIP-55, which every reader takes."""
    digest = _keccak(address.encode()).hex()
    return "0x" + "".join(
        char.upper() if int(mark, 16) > 7 else char for char, mark in zip(address, digest, strict=False)
    )


def _keccak(content: bytes) -> bytes:
    from Crypto.Hash import keccak

    return keccak.new(digest_bits=256, data=content).digest()

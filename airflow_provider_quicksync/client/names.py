"""
How a file's name is written into ``encryptedName``, and read back.

QS Share (QuickSync's web app) shows a file's name when it is encrypted with AES-256, the session id
being the key. Reading of the API page: CryptoJS's passphrase mode, which is OpenSSL's salted format
(``openssl enc -aes-256-cbc -md md5 -a -A``): base64 of ``Salted__``, 8 salt bytes and the ciphertext.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import os
from typing import Protocol, cast

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from .errors import UsageError

QS_SHARE = "qs-share"
NONE = "none"
_MAGIC = b"Salted__"
_SALT_BYTES, _KEY_BYTES, _BLOCK_BYTES = 8, 32, 16


class NameCipher(Protocol):
    """
    A way to write names. ``needs_session`` says that it can't work without a session id; ``unique``
    that no two encryptions are ever equal, so that a raw name identifies one upload.
    """

    needs_session: bool
    unique: bool

    def encrypt(self, name: str, session_id: str) -> str:
        """The raw name to send."""

    def decrypt(self, raw_name: str, session_id: str) -> str:
        """The readable name. :raises ValueError: it was not written by this cipher and session."""


class QsShareCipher:
    """The names that QS Share shows (CryptoJS passphrase AES)."""

    needs_session = True
    unique = True

    def encrypt(self, name: str, session_id: str) -> str:
        """Encrypt with a fresh salt."""
        salt = os.urandom(_SALT_BYTES)
        padder = PKCS7(_BLOCK_BYTES * 8).padder()
        padded = padder.update(name.encode()) + padder.finalize()
        encryptor = self._cipher(session_id, salt).encryptor()
        return base64.b64encode(_MAGIC + salt + encryptor.update(padded) + encryptor.finalize()).decode()

    def decrypt(self, raw_name: str, session_id: str) -> str:
        """Decrypt; a wrong session shows as bad padding or bad UTF-8, nothing better."""
        try:
            data = base64.b64decode(raw_name, validate=True)
        except binascii.Error as error:
            raise ValueError("not base64") from error
        if not data.startswith(_MAGIC) or len(data) % _BLOCK_BYTES or len(data) < 2 * _BLOCK_BYTES:
            raise ValueError("not in OpenSSL's salted format")
        salt = data[len(_MAGIC) : len(_MAGIC) + _SALT_BYTES]
        decryptor = self._cipher(session_id, salt).decryptor()
        padded = decryptor.update(data[len(_MAGIC) + _SALT_BYTES :]) + decryptor.finalize()
        unpadder = PKCS7(_BLOCK_BYTES * 8).unpadder()
        return (unpadder.update(padded) + unpadder.finalize()).decode()

    @staticmethod
    def _cipher(session_id: str, salt: bytes) -> Cipher[modes.CBC]:
        # hashlib's MD5, as cryptography's own is refused under a FIPS setting.
        derived, block = b"", b""
        while len(derived) < _KEY_BYTES + _BLOCK_BYTES:
            block = hashlib.md5(block + session_id.encode() + salt, usedforsecurity=False).digest()
            derived += block
        return Cipher(algorithms.AES256(derived[:_KEY_BYTES]), modes.CBC(derived[_KEY_BYTES:][:_BLOCK_BYTES]))


class PlainNames:
    """Names as they are."""

    needs_session = False
    unique = False

    def encrypt(self, name: str, session_id: str) -> str:
        """The name."""
        return name

    def decrypt(self, raw_name: str, session_id: str) -> str:
        """The name."""
        return raw_name


def name_cipher(choice: str | NameCipher) -> NameCipher:
    """
    The cipher of a setting: ``qs-share``, ``none``, an object, or ``package.module:Class`` for your own.

    :raises UsageError: there is no such cipher.
    """
    if not isinstance(choice, str):
        return _checked(choice)
    if choice == QS_SHARE:
        return QsShareCipher()
    if choice == NONE:
        return PlainNames()
    module, _, attribute = choice.partition(":")
    try:
        return _checked(getattr(importlib.import_module(module), attribute)())
    except UsageError:
        raise
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"name_cipher {choice!r}: use {QS_SHARE!r}, {NONE!r} or 'package.module:Class' ({error})"
        ) from error


def _checked(cipher: object) -> NameCipher:
    missing = [
        name for name in ("needs_session", "unique", "encrypt", "decrypt") if not hasattr(cipher, name)
    ]
    if missing:
        raise UsageError(f"name_cipher {type(cipher).__name__} has no {', '.join(missing)}: see NameCipher")
    return cast("NameCipher", cipher)

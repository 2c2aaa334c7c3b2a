"""
An Airflow connection becomes a client: its fields, read and checked in one place.

Every problem is a one-line :class:`UsageError` that names the connection and the field, never a value
that could be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, TypeVar

from airflow_provider_quicksync.client import (
    DEFAULT_BASE_URL,
    HttpOptions,
    NameCipher,
    QuickSyncClient,
    RetryPolicy,
    ServiceLimits,
    UsageError,
)
from airflow_provider_quicksync.client.names import QS_SHARE
from airflow_provider_quicksync.client.transfer.plan import MIB
from airflow_provider_quicksync.provider_info import CONNECTION_FIELDS

T = TypeVar("T")

SECRET_FIELDS = [
    name for name, field in CONNECTION_FIELDS.items() if field["schema"].get("format") == "password"
]
_DEFAULT_PATH = "v1"
_WORDS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


class ConnectionLike(Protocol):
    """What is read of an Airflow connection."""

    conn_id: Any
    host: Any
    port: Any
    schema: Any
    password: Any

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The extras."""


class Settings(TypedDict, total=False):
    """The connection's extras, also accepted as keyword arguments of the hook, which then win."""

    api_key: str | None
    session_id: str | None
    name_cipher: str | NameCipher | None
    part_size_mib: float | None
    max_concurrency: int | None
    connect_timeout: float | None
    read_timeout: float | None
    max_attempts: int | None
    verify: bool | str | None
    min_part_size_mib: float | None


@dataclass(frozen=True)
class Configuration:
    """What a connection says, checked. Holds secrets: its repr shows none."""

    where: str
    base_url: str
    token: str
    settings: Settings
    part_size_bytes: int | None
    concurrency: int

    def __repr__(self) -> str:
        return f"Configuration(base_url={self.base_url!r})"

    @property
    def secrets(self) -> list[str]:
        """Everything a log must not show."""
        found = [self.token, *(self.settings.get(name) for name in SECRET_FIELDS)]
        return [secret for secret in found if isinstance(secret, str) and secret]

    def client(self) -> QuickSyncClient:
        """
        A client for it.

        :raises UsageError: there is no token, or the URL or a setting is of no use.
        """
        try:
            return self._client()
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from None

    def _client(self) -> QuickSyncClient:
        settings = self.settings
        minimum = settings.get("min_part_size_mib")
        return QuickSyncClient(
            self.token,
            base_url=self.base_url,
            api_key=settings.get("api_key"),
            session_id=settings.get("session_id"),
            cipher=settings.get("name_cipher") or QS_SHARE,
            http=HttpOptions(
                connect_timeout=settings.get("connect_timeout") or HttpOptions.connect_timeout,
                read_timeout=settings.get("read_timeout") or HttpOptions.read_timeout,
                verify=True if (verify := settings.get("verify")) is None else verify,
                connections=self.concurrency,
            ),
            retry=RetryPolicy(max_attempts=settings.get("max_attempts") or RetryPolicy.max_attempts),
            limits=ServiceLimits(min_part_bytes=round(minimum * MIB)) if minimum else None,
        )


def read_connection(connection: ConnectionLike, overrides: Settings | None = None) -> Configuration:
    """
    Check a connection and what overrides it.

    :raises UsageError: a field has a value that can't be used.
    """
    where = f"connection {connection.conn_id!r}"
    try:
        extras = connection.extra_dejson
    except ValueError:
        raise UsageError(f"{where}: the extras are not JSON") from None
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    unknown = sorted(set(given) - set(CONNECTION_FIELDS))
    if unknown:
        raise UsageError(f"there is no setting {unknown[0]!r}; settings are {', '.join(CONNECTION_FIELDS)}")
    if not isinstance(extras, Mapping):
        raise UsageError(f"{where}: the extras are not a JSON object")
    found = _settings({**extras, **given}, where)
    part_size = found.get("part_size_mib")
    return Configuration(
        where=where,
        base_url=base_url(connection.host, connection.port, connection.schema),
        token=(connection.password or "").strip(),
        settings=found,
        part_size_bytes=max(1, round(part_size * MIB)) if part_size else None,
        concurrency=found.get("max_concurrency") or HttpOptions.connections,
    )


def base_url(host: str | None, port: int | None, schema: str | None) -> str:
    """
    The API's base URL of a connection: a URL as host, or host, scheme and port as an Airflow URI gives them.

    Where no path is given it is ``/v1``; a host that ends in ``/`` says that there is none.
    """
    host = (host or "").strip()
    if not host:
        return DEFAULT_BASE_URL
    schema = (schema or "").strip()
    scheme, path = (schema, "") if schema.lower() in ("http", "https") else ("https", schema)
    if "://" in host:
        scheme, _, host = host.partition("://")
    netloc, slash, own_path = host.partition("/")
    if netloc.count(":") > 1 and "[" not in netloc:
        netloc = f"[{netloc}]"  # an Airflow URI loses the brackets of an IPv6 address
    if port and not re.search(r":\d+$", netloc.rpartition("]")[2]):
        netloc = f"{netloc}:{port}"
    return f"{scheme}://{netloc}/{own_path if slash else path.strip('/') or _DEFAULT_PATH}"


def _settings(given: Mapping[str, Any], where: str) -> Settings:
    """The known settings with their types; empty form fields are as good as absent."""

    def read(name: str, convert: Callable[[Any], T]) -> T | None:
        value = given.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        try:
            return convert(value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{where}: {name} {error}") from None

    return Settings(
        api_key=read("api_key", _text),
        session_id=read("session_id", _text),
        name_cipher=read("name_cipher", lambda value: value.strip() if isinstance(value, str) else value),
        part_size_mib=read("part_size_mib", _positive),
        max_concurrency=read("max_concurrency", _connections),
        connect_timeout=read("connect_timeout", _positive),
        read_timeout=read("read_timeout", _positive),
        max_attempts=read("max_attempts", _count),
        verify=read("verify", _verify),
        min_part_size_mib=read("min_part_size_mib", _positive),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("must be text")
    return value.strip()


def _positive(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ValueError("must be a number above 0")
    return number


def _count(value: Any) -> int:
    number = _positive(value)
    if number != int(number):
        raise ValueError("must be a whole number above 0")
    return int(number)


def _connections(value: Any) -> int:
    count, most = _count(value), CONNECTION_FIELDS["max_concurrency"]["schema"]["maximum"]
    if count > most:
        raise ValueError(f"must be {most} or less")
    return count


def _verify(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    text = _text(value)
    return _WORDS.get(text.lower(), text)

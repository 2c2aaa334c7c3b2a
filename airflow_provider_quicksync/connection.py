"""
An Airflow connection becomes a client: its fields, read and checked in one place.

Every problem is a one-line :class:`UsageError` that names the connection and the field, never a value
that could be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict, TypeVar, cast, get_args

from airflow_provider_quicksync.client import (
    DEFAULT_BASE_URL,
    CreatedSession,
    Credentials,
    HttpOptions,
    JoinedSession,
    NameCipher,
    NotFoundError,
    QuickSyncClient,
    RetryPolicy,
    ServiceLimits,
    SessionApi,
    SessionRules,
    SessionToken,
    UsageError,
)
from airflow_provider_quicksync.client.names import QS_SHARE
from airflow_provider_quicksync.client.transfer.plan import MIB
from airflow_provider_quicksync.links import checked_web_url
from airflow_provider_quicksync.provider_info import CONNECTION_FIELDS
from airflow_provider_quicksync.receipts import as_session_id

T = TypeVar("T")
SessionMode = Literal["token", "join", "create"]
"""Where bearers come from: the connection's token, a session to join, or sessions to create."""

SECRET_FIELDS = [
    name for name, field in CONNECTION_FIELDS.items() if field["schema"].get("format") == "password"
]
HOST_NAME = "airflow"
"""What the host of a session that is created is called."""
_DEFAULT_PATH = "v1"
_ONE_ATTEMPT = RetryPolicy(max_attempts=1)
"""For renewing a bearer: the call that needs it is tried again anyway."""
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
    session_id: Any
    session_mode: str | None
    wallet_private_key: str | None
    session_password: str | None
    session_expiry_seconds: int | None
    session_capacity: int | None
    session_whitelist: str | None
    uplink_mib_per_second: float | None
    name_cipher: str | NameCipher | None
    part_size_mib: float | None
    max_concurrency: int | None
    connect_timeout: float | None
    read_timeout: float | None
    max_attempts: int | None
    verify: bool | str | None
    web_url: str | None
    min_part_size_mib: float | None


@dataclass(frozen=True)
class Configuration:
    """
    What a connection says, checked. Holds secrets: its repr shows none.

    :param names_session: whether the session was named beside the connection.
    """

    where: str
    base_url: str
    token: str
    settings: Settings
    session_mode: SessionMode
    names_session: bool
    part_size_bytes: int | None
    concurrency: int

    def __repr__(self) -> str:
        return f"Configuration(base_url={self.base_url!r})"

    @property
    def secrets(self) -> list[str]:
        """Everything a log must not show."""
        found = [self.token, *(self.settings.get(name) for name in SECRET_FIELDS)]
        key = self.settings.get("wallet_private_key") or ""
        found.append(key.removeprefix("0x"))
        return [secret for secret in found if isinstance(secret, str) and secret]

    def client(self, *, on_token: Callable[[str], None] | None = None) -> QuickSyncClient:
        """
        A client for it.

        :param on_token: told every bearer that a wallet gets.
        :raises UsageError: there is no token, or the URL or a setting is of no use.
        """
        try:
            return self._client(on_token)
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from None

    def check_session(self, client: QuickSyncClient) -> None:
        """:raises UsageError: the token is of another session than the one that was named beside it."""
        if self.names_session and self.session_mode == "token":
            with suppress(NotFoundError):  # the service tells none
                client.current_session()

    def check_may_hold_files(self) -> None:
        """:raises UsageError: every task makes a session of its own, in which nothing is yet."""
        if self.session_mode == "create":
            raise UsageError(
                f"{self.where} makes a new session for each task, in which nothing is yet: name the one"
                " of the files, as in session_id=upload.output"
            )

    def session_api(self) -> SessionApi:
        """
        What its wallet may ask.

        :raises UsageError: there is no wallet, or it is of no use.
        """
        try:
            return self._session_api(self._retry)
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from None

    def session_rules(self) -> SessionRules:
        """
        The rules of sessions that are created.

        :raises UsageError: one of them can't be.
        """
        settings = self.settings
        try:
            return SessionRules(
                expiry_seconds=settings.get("session_expiry_seconds") or SessionRules.expiry_seconds,
                capacity=settings.get("session_capacity"),
                password=settings.get("session_password"),
                whitelist=tuple((settings.get("session_whitelist") or "").replace(",", " ").split()),
            )
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from None

    def _client(self, on_token: Callable[[str], None] | None) -> QuickSyncClient:
        settings = self.settings
        minimum = settings.get("min_part_size_mib")
        return QuickSyncClient(
            self._credentials(on_token),
            base_url=self.base_url,
            api_key=settings.get("api_key"),
            session_id=settings.get("session_id"),
            cipher=settings.get("name_cipher") or QS_SHARE,
            http=self._http,
            retry=self._retry,
            limits=ServiceLimits(min_part_bytes=round(minimum * MIB)) if minimum else None,
        )

    def _credentials(self, on_token: Callable[[str], None] | None) -> Credentials:
        session_id, password = self.settings.get("session_id"), self.settings.get("session_password")
        if self.session_mode == "join":
            return JoinedSession(self._session_api(_ONE_ATTEMPT), session_id, password, on_token=on_token)
        if self.session_mode == "create":
            rules = self.session_rules()
            return CreatedSession(self._session_api(_ONE_ATTEMPT), rules, HOST_NAME, on_token=on_token)
        return SessionToken(self.token)

    def _session_api(self, retry: RetryPolicy) -> SessionApi:
        key = self.settings.get("wallet_private_key")
        if not key:
            raise UsageError("sessions are created and joined with a wallet: set wallet_private_key")
        return SessionApi(
            key, base_url=self.base_url, api_key=self.settings.get("api_key"), http=self._http, retry=retry
        )

    @property
    def _http(self) -> HttpOptions:
        settings = self.settings
        return HttpOptions(
            connect_timeout=settings.get("connect_timeout") or HttpOptions.connect_timeout,
            read_timeout=settings.get("read_timeout") or HttpOptions.read_timeout,
            verify=True if (verify := settings.get("verify")) is None else verify,
            connections=self.concurrency,
        )

    @property
    def _retry(self) -> RetryPolicy:
        return RetryPolicy(max_attempts=self.settings.get("max_attempts") or RetryPolicy.max_attempts)


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
    names_session = "session_id" in given
    if names_session:
        given["session_id"] = as_session_id(given["session_id"])
    found = _settings({**extras, **given}, where)
    token, part_size = (connection.password or "").strip(), found.get("part_size_mib")
    return Configuration(
        where=where,
        base_url=base_url(connection.host, connection.port, connection.schema),
        token=token,
        settings=found,
        session_mode=_session_mode(found, has_token=bool(token), names_session=names_session, where=where),
        names_session=names_session,
        part_size_bytes=max(1, round(part_size * MIB)) if part_size else None,
        concurrency=found.get("max_concurrency") or HttpOptions.connections,
    )


def _session_mode(settings: Settings, *, has_token: bool, names_session: bool, where: str) -> SessionMode:
    """
    The mode that was asked for, else what is possible by what is given.

    A session that was named beside the connection is joined also where the connection creates sessions.

    :raises UsageError: it can't be.
    """
    mode, has_wallet = settings.get("session_mode"), bool(settings.get("wallet_private_key"))
    if mode is None:
        if has_wallet and settings.get("session_id"):
            mode = "join"
        else:
            mode = "create" if has_wallet and not has_token else "token"
    if mode not in get_args(SessionMode):
        raise UsageError(f"{where}: session_mode must be token, join or create, not {mode!r}")
    if mode == "create" and names_session:
        mode = "join"
    if mode != "token" and not has_wallet:
        raise UsageError(f"{where}: session_mode {mode} needs a wallet: set wallet_private_key")
    if mode == "join" and not settings.get("session_id"):
        raise UsageError(f"{where}: session_mode join needs a session: set session_id")
    if mode == "create" and settings.get("session_id"):
        raise UsageError(f"{where}: session_mode create makes new sessions: remove session_id, or use join")
    return cast("SessionMode", mode)


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
        session_mode=read("session_mode", lambda value: _text(value).lower()),
        wallet_private_key=read("wallet_private_key", _text),
        session_password=read("session_password", _password),
        session_expiry_seconds=read("session_expiry_seconds", _count),
        session_capacity=read("session_capacity", _count),
        session_whitelist=read("session_whitelist", _text),
        uplink_mib_per_second=read("uplink_mib_per_second", _positive),
        name_cipher=read("name_cipher", lambda value: value.strip() if isinstance(value, str) else value),
        part_size_mib=read("part_size_mib", _positive),
        max_concurrency=read("max_concurrency", _connections),
        connect_timeout=read("connect_timeout", _positive),
        read_timeout=read("read_timeout", _positive),
        max_attempts=read("max_attempts", _count),
        verify=read("verify", _verify),
        web_url=read("web_url", checked_web_url),
        min_part_size_mib=read("min_part_size_mib", _positive),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("must be text")
    return value.strip()


def _password(value: Any) -> str:
    """As it is: a password may begin or end with a space."""
    if not isinstance(value, str):
        raise TypeError("must be text")
    if set(value) == {"*"}:
        raise ValueError("is a mask (***), not a password: enter it again")
    return value


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

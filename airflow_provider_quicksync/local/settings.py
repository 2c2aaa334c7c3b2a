"""What a local QuickSync can be told: where it listens, its limits, its session, its tempo."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

MIB = 1024 * 1024
#: As in S3-compatible IPFS stores (a Reading of the API page): smallest part but the last, most parts.
DEFAULT_MIN_PART_BYTES = 5 * MIB
DEFAULT_MAX_PARTS = 10_000
DAY_SECONDS = 24 * 60 * 60

#: Settings that only count when a server starts; the others may change while it runs.
FIXED_AT_START = frozenset({"host", "port", "token", "session_id", "creator_id", "log_entries"})
_KINDS: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "None": type(None)}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one server; a limit of ``None`` means "no limit"."""

    host: str = "127.0.0.1"
    #: 0 takes a free port.
    port: int = 0
    #: A fixed bearer; without one the server makes a JWT and keeps it in its root.
    token: str | None = None
    session_id: str | None = None
    creator_id: str | None = None
    #: When set, ``X-API-KEY`` is required where the API page names it (`PUT /buckets`, `POST /session`).
    api_key: str | None = None
    min_part_bytes: int = DEFAULT_MIN_PART_BYTES
    max_parts: int = DEFAULT_MAX_PARTS
    #: A file turns ``completed`` this long after ``complete`` answered…
    complete_after_seconds: float = 0
    #: …and after this many polls (a listing or its metadata) have said "not yet".
    complete_after_polls: int = 0
    max_files: int | None = 1_000_000
    max_total_megabytes: int | None = 1_048_576
    max_users: int | None = 100
    #: How long the server's session lives, and the longest life of one that is created.
    session_seconds: float = 7 * DAY_SECONDS
    #: A shorter life for the bearers of sessions that are created or joined.
    token_seconds: float | None = None
    wallet_seconds: float = 600
    link_seconds: float = 3600
    #: Another name for this machine in download links, so that they are of another origin.
    link_host: str | None = None
    #: What each file key starts with, to try keys with awkward characters.
    key_prefix: str = ""
    #: The hub pings so often, and gives up a client that is silent for so long (ASP.NET's defaults).
    hub_ping_seconds: float = 15
    hub_timeout_seconds: float = 30
    #: Added to every call.
    latency_seconds: float = 0
    #: Sent with every JSON answer instead of what ``Accept`` asks for.
    content_type: str | None = None
    #: How many requests the log keeps; the counters count all.
    log_entries: int = 50_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = tuple(_KINDS[name] for name in str(field.type).split(" | "))
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ValueError(f"{field.name} must be {field.type}, not {value!r}")
            if isinstance(value, (int, float)) and value < 0:
                raise ValueError(f"{field.name} must not be negative, not {value!r}")
        for name in ("max_parts", "session_seconds", "log_entries", "hub_ping_seconds"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must be more than 0")

    def changed(self, **changes: Any) -> Settings:
        """Return a copy with *changes*; refuse unknown names and those fixed at the start."""
        known = {field.name for field in fields(self)}
        for name in changes:
            if name not in known:
                raise ValueError(f"there is no setting {name!r}; there are {', '.join(sorted(known))}")
            if name in FIXED_AT_START:
                raise ValueError(f"{name!r} is fixed when the server starts")
        return replace(self, **changes)

    def public(self) -> dict[str, Any]:
        """Return the settings without the values of secrets."""
        hidden = {name: "***" for name in ("token", "api_key") if getattr(self, name)}
        return {**asdict(self), **hidden}

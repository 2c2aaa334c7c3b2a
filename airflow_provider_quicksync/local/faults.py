"""Faults to switch on: what one says, and the thread-safe book of those in force."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal, get_args

#: The calls by name, as the client's methods are named.
CALLS = (
    "list_files",
    "initiate",
    "put_part",
    "complete",
    "delete",
    "get_file",
    "get_download_url",
    "download",
    "current_session",
    "create_session",
    "join_session",
    "disconnect_session",
    "delete_session",
    "wallet_nonce",
    "wallet_verify",
    "negotiate",
    "hub",
)
ANY_CALL = "*"

#: Where the connection ends: before anything is read, in the middle of the request's body, after the
#: call took effect but before its answer, or in the middle of the answer.
Cut = Literal["reset", "request", "answer", "response"]
#: What the answer is instead: every field null, an HTML page, without an end, empty, one byte changed.
Body = Literal["nulls", "not_json", "endless", "empty", "corrupt"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong, for the next ``times`` requests of ``call`` (``None``: until cleared)."""

    call: str
    times: int | None = 1
    #: Let this many matching requests pass first.
    skip: int = 0
    #: Only requests for this part.
    part_number: int | None = None
    #: Wait before the call is handled.
    delay_seconds: float = 0
    #: Answer with this status instead of handling the call.
    status: int | None = None
    #: Sent with ``status``: seconds, a moment (sent as an HTTP date), or the header's text.
    retry_after: float | str | datetime | None = None
    #: Answer ``status`` (307 if there is none) with this ``Location``.
    redirect_to: str | None = None
    cut: Cut | None = None
    #: Where in the body ``cut`` falls; without it, in the middle.
    after_bytes: int | None = None
    #: Handle the call, send half of its answer, and only after this pause the rest.
    stall_seconds: float = 0
    body: Body | None = None
    #: With ``body="nulls"``: only these fields.
    null_fields: tuple[str, ...] = ()
    #: The download sends the whole file, whatever ``Range`` asks for.
    ignore_range: bool = False
    #: The link of this answer expires so soon.
    link_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.call != ANY_CALL and self.call not in CALLS:
            raise ValueError(f"there is no call {self.call!r}; there are {', '.join((ANY_CALL, *CALLS))}")
        for name, choices in (("cut", get_args(Cut)), ("body", get_args(Body))):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        if self.times is not None and self.times < 1:
            raise ValueError("times must be 1 or more, or None for until cleared")

    @property
    def retry_after_header(self) -> str | None:
        """The value of ``Retry-After``, or ``None``."""
        value = self.retry_after
        if isinstance(value, datetime):
            return format_datetime(value.astimezone(UTC), usegmt=True)
        return f"{value:g}" if isinstance(value, (int, float)) else value

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Fault:
        """Make a fault of a JSON object with the same names."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(document) - known)
        if unknown:
            raise ValueError(f"unknown in a fault: {', '.join(unknown)}")
        values = dict(document)
        if "call" not in values:
            raise ValueError("a fault needs a call")
        values["null_fields"] = tuple(values.get("null_fields", ()))
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """Return the fault as a JSON object."""
        return {**asdict(self), "retry_after": self.retry_after_header, "null_fields": list(self.null_fields)}


class FaultBook:
    """The faults in force, oldest first; a request meets the first that matches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: list[_Active] = []

    def add(self, fault: Fault) -> None:
        """Switch *fault* on."""
        with self._lock:
            self._active.append(_Active(fault, fault.skip, fault.times))

    def clear(self) -> None:
        """Switch all faults off."""
        with self._lock:
            self._active.clear()

    def current(self) -> list[Fault]:
        """Return the faults still in force."""
        with self._lock:
            return [active.fault for active in self._active]

    def take(self, call: str, part_number: int | None) -> Fault | None:
        """Return the fault this request meets, and count it."""
        with self._lock:
            for active in self._active:
                if active.meets(call, part_number):
                    if active.times_left == 0:
                        self._active.remove(active)
                    return active.fault
        return None


@dataclass
class _Active:
    fault: Fault
    skip_left: int
    times_left: int | None

    def meets(self, call: str, part_number: int | None) -> bool:
        if self.fault.call not in (ANY_CALL, call):
            return False
        if self.fault.part_number is not None and self.fault.part_number != part_number:
            return False
        if self.skip_left:
            self.skip_left -= 1
            return False
        if self.times_left is not None:
            self.times_left -= 1
        return True

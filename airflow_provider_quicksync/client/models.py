"""
What the QuickSync API sends, as frozen dataclasses.

Unknown fields are ignored (the service adds some), and a field of the wrong type is a
:class:`~.errors.DamagedError` that names it. Source: the Upload API's OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict, TypeVar

from .errors import DamagedError

T = TypeVar("T")


class Receipt(TypedDict):
    """
    What an upload returns and other tasks take: JSON-serialisable, without secrets.

    ``sha256`` is None where no checksum was asked for; ``completed`` says whether the service was seen to
    have finished with the file; ``session_id`` is None where it isn't known.
    """

    file_key: str
    name: str
    size_bytes: int
    sha256: str | None
    parts: int
    completed: bool
    session_id: str | None


@dataclass(frozen=True, slots=True)
class FileInfo:
    """
    A file in the session's bucket (``UploadInfoDto``).

    ``name`` is the readable name where it could be decrypted, else the same as ``raw_name``, which is
    the name as the service keeps it. ``completed`` turns true some time after the upload was completed.
    """

    file_key: str
    name: str | None
    raw_name: str | None
    creator_id: str | None
    completed: bool
    total_parts: int
    size_bytes: int

    @classmethod
    def from_json(cls, data: object, *, where: str) -> FileInfo:
        """Read an ``UploadInfoDto``; ``where`` names the call in an error."""
        fields = _object(data, where)
        raw_name = _field(fields, "fileName", str, None, where)
        return cls(
            file_key=_required(fields, "fileKey", where),
            name=raw_name,
            raw_name=raw_name,
            creator_id=_field(fields, "creatorId", str, None, where),
            completed=_field(fields, "completed", bool, False, where),
            total_parts=_field(fields, "totalParts", int, 0, where),
            size_bytes=_field(fields, "originalSizeInBytes", int, 0, where),
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields as a JSON-serialisable dict, for XComs and events."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was initiated or completed: its id, and the key of the file it makes."""

    upload_id: str
    file_key: str

    @classmethod
    def from_json(cls, data: object, *, where: str) -> Upload:
        """Read an ``InitiateUploadResponse``; both values are needed by the next step."""
        fields = _object(data, where)
        return cls(_required(fields, "uploadId", where), _required(fields, "fileKey", where))


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """A part the service has; ``tag`` is what completing the upload needs."""

    part_number: int
    tag: str

    @classmethod
    def from_json(cls, data: object, *, part_number: int, where: str) -> UploadedPart:
        """Read an ``UploadPartResponse``; an answer about another part is an error."""
        fields = _object(data, where)
        answered = _field(fields, "partNumber", int, part_number, where)
        if answered != part_number:
            raise DamagedError(f"{where}: the service answered for part {answered}, not {part_number}")
        return cls(part_number, _required(fields, "tag", where))


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """
    The session a token belongs to (``GET /session/current``).

    ``expiry`` is what the service sends, in its own unit (an int32); limits are ``None`` where the
    service names none, and so is the number of ``users`` in it.
    """

    session_id: str | None
    creator_id: str | None
    expiry: int | None
    max_files: int | None
    max_users: int | None
    max_total_megabytes: int | None
    password_protected: bool
    users: int | None = None

    @classmethod
    def from_json(cls, data: object, *, where: str) -> SessionInfo:
        """Read the current session."""
        fields = _object(data, where)
        return cls(
            session_id=_field(fields, "id", str, None, where),
            creator_id=_field(fields, "creatorId", str, None, where),
            expiry=_field(fields, "expiry", int, None, where),
            max_files=_field(fields, "maxFiles", int, None, where),
            max_users=_field(fields, "maxUsers", int, None, where),
            max_total_megabytes=_field(fields, "maxTotalMegaBytes", int, None, where),
            password_protected=_field(fields, "passwordProtected", bool, False, where),
            users=None if (users := _field(fields, "users", list, None, where)) is None else len(users),
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields as a JSON-serialisable dict, for XComs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Admission:
    """
    What lets a wallet into a session that it created or joined. The token is a secret, and not shown.

    ``expires_in`` is in seconds, from the answer on; None where the service doesn't say.
    """

    session: SessionInfo
    session_id: str
    token: str = field(repr=False)
    expires_in: float | None
    role: str | None

    @classmethod
    def from_json(cls, data: object, *, where: str) -> Admission:
        """Read the answer to creating or joining a session."""
        fields = _object(data, where)
        session_id = _required(fields, "sessionId", where)
        credentials = _object(fields.get("credentials") or {}, where)
        rules = {**_object(fields.get("rules") or {}, where), "id": session_id, "users": fields.get("users")}
        return cls(
            session=SessionInfo.from_json(rules, where=where),
            session_id=session_id,
            token=_required(credentials, "token", where),
            expires_in=_field(fields, "expiresIn", int, None, where),
            role=_field(credentials, "role", str, None, where),
        )

    def as_dict(self) -> dict[str, Any]:
        """The session and its rules, without the token, as a JSON-serialisable dict for XComs."""
        rules = self.session.as_dict()
        return {**rules, "expires_in": self.expires_in, "role": self.role}


def _object(data: object, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise DamagedError(f"{where}: the service answered {type(data).__name__}, an object was expected")
    return data


def _field(fields: Mapping[str, Any], key: str, kind: type[T], default: Any, where: str) -> Any:
    value = fields.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DamagedError(f"{where}: field {key} is {type(value).__name__}, not {kind.__name__}")
    return value


def _required(fields: Mapping[str, Any], key: str, where: str) -> str:
    value: str | None = _field(fields, key, str, None, where)
    if not value:
        raise DamagedError(f"{where}: the service answered without {key}, which the next step needs")
    return value

"""
What can go wrong, as types.

QuickSyncError                    the root; ``retryable`` says whether a retry may help
├── UnreachableError              no connection, reset, cut-off body          (ConnectionError, retryable)
│   ├── DeadlineError             connect or read timeout                     (TimeoutError, retryable)
│   └── UntrustedError            the TLS certificate is not trusted          (not retryable)
├── BusyError                     408, 425, 429 and 5xx; ``retry_after``      (retryable)
├── RefusedError                  401, 403: credentials                       (PermissionError)
│   └── SessionExpiredError       the session or its token has ended
├── NotFoundError                 404, 410                                    (FileNotFoundError)
├── ConflictError                 409, 412                                    (FileExistsError)
├── LimitError                    413, 422, 507: over the session's limits
├── DamagedError                  an answer or a file that is not what it must be
│   └── SourceChangedError        the source changed under an upload
├── UsageError                    refused here, or 400 and other 4xx          (ValueError)
└── StoppedError                  stopped on request

Messages are one line: what failed, on what, the status, the trace id, what to do next. They never
hold a token, an API key or the query of a link. Every instance pickles.
"""

from __future__ import annotations


class QuickSyncError(Exception):
    """
    Root of every error of this package.

    :param message: one line, ready to be shown.
    :param status: HTTP status of the answer, when there was one.
    :param trace_id: the service's own id of the request, for its support.
    :param retry_after: seconds the service asked to wait.
    :param maybe_done: the request may have taken effect although no good answer came back.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        trace_id: str | None = None,
        retry_after: float | None = None,
        maybe_done: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.trace_id = trace_id
        self.retry_after = retry_after
        self.maybe_done = maybe_done


class UnreachableError(QuickSyncError, ConnectionError):
    """No connection, a reset one, or an answer that ended too early."""

    retryable = True


class DeadlineError(UnreachableError, TimeoutError):
    """No answer in time."""


class UntrustedError(UnreachableError):
    """The service's TLS certificate is not trusted."""

    retryable = False


class BusyError(QuickSyncError):
    """The service cannot answer now (408, 425, 429, 5xx)."""

    retryable = True


class RefusedError(QuickSyncError, PermissionError):
    """The credentials are not accepted (401, 403)."""


class SessionExpiredError(RefusedError):
    """The session, or the token for it, has ended."""


class NotFoundError(QuickSyncError, FileNotFoundError):
    """There is no such file, upload or session (404, 410)."""


class ConflictError(QuickSyncError, FileExistsError):
    """It is there already, or in a state that does not allow the call (409, 412)."""


class LimitError(QuickSyncError):
    """Over the session's limits (413, 422, 507), or found to be so before anything was sent."""


class DamagedError(QuickSyncError):
    """An answer or a file that is not what it must be: unreadable, incomplete, wrong checksum."""


class SourceChangedError(DamagedError):
    """The source of an upload changed, shrank or vanished while it was read."""


class UsageError(QuickSyncError, ValueError):
    """Wrong use: refused before anything was sent, or by the service with a 4xx."""


class StoppedError(QuickSyncError):
    """Stopped on request; not a failure of the service."""


STATUS_ERRORS: dict[int, type[QuickSyncError]] = {
    401: RefusedError,
    403: RefusedError,
    404: NotFoundError,
    408: BusyError,
    409: ConflictError,
    410: NotFoundError,
    412: ConflictError,
    413: LimitError,
    422: LimitError,
    425: BusyError,
    429: BusyError,
    500: BusyError,
    502: BusyError,
    503: BusyError,
    504: BusyError,
    507: LimitError,
}

NEXT_STEP: dict[type[QuickSyncError], str] = {
    RefusedError: "check the session token (and API key) of the connection",
    SessionExpiredError: "put a fresh session token into the connection",
    NotFoundError: "check the file key, and that the session is the one that holds it",
    LimitError: "check the session's rules (files, megabytes, expiry)",
    BusyError: "try again later",
    UntrustedError: "set verify to the CA file that signs it",
    UnreachableError: "check the connection's host and the network",
    DeadlineError: "check the network, or raise connect_timeout/read_timeout",
}


def error_class_for(status: int) -> type[QuickSyncError]:
    """The class for an HTTP status that is not 200: one table, 5xx elsewhere busy, the rest wrong use."""
    return STATUS_ERRORS.get(status) or (BusyError if status >= 500 else UsageError)


def is_hopeless(error: BaseException) -> bool:
    """Whether doing the same again can't succeed until somebody changes something."""
    if isinstance(error, NotFoundError):
        return error.status is not None  # without one, a source is missing, which may appear yet
    return isinstance(error, RefusedError | UsageError | LimitError | ConflictError | UntrustedError)


def summed_up(failures: list[QuickSyncError], what: str) -> QuickSyncError:
    """
    One error for several: of the class of the first whose cause may pass, else of the first.

    :param failures: one at least.
    """
    kind = next((f for f in failures if not is_hopeless(f)), failures[0])
    said = "; ".join(str(failure) for failure in failures[:5])
    more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
    return type(kind)(f"{what}: {said}{more}", status=kind.status, trace_id=kind.trace_id)

"""Every error that the service raises on purpose.

FettleError
├── BadRequest            400  BAD_REQUEST: broken JSON, a bad cursor
├── Unauthenticated       401  UNAUTHENTICATED: no API key, or one that isn't in force
├── Forbidden             403  FORBIDDEN: the key may not do this
├── CrossOrigin           403  CROSS_ORIGIN: another site's page sent it
├── NotFound              404  STUDY_NOT_FOUND, TRIAL_NOT_FOUND, ARTIFACT_NOT_FOUND, WORKER_NOT_FOUND, …
├── Conflict              409
│   ├── StateConflict          STATE_CONFLICT: the resource's state doesn't allow the action
│   ├── NameTaken              NAME_TAKEN: another study, or data set, of the project has the name
│   ├── DatasetInUse           DATASET_IN_USE: studies train on it
│   ├── QuotaExceeded          QUOTA_EXCEEDED: the project may have no more of this
│   ├── RequestInFlight        REQUEST_IN_FLIGHT: the same Idempotency-Key is being served now
│   ├── DefinitionTooNew       DEFINITION_TOO_NEW: a newer version stored the study, with what this one doesn't know
│   ├── MigrationRefused       MIGRATION_REFUSED: the schema isn't taken where it was asked to; no request gets it
│   └── LeaseLost              LEASE_LOST: another attempt holds the trial, or it is over
├── NotAcceptable         406  NOT_ACCEPTABLE: no media type that the client accepts
├── RequestTimeout        408  REQUEST_TIMEOUT: it did not arrive in time
├── PreconditionFailed    412  REVISION_MISMATCH: If-Match names another revision
├── BodyTooLarge          413  BODY_TOO_LARGE
├── UriTooLong            414  URI_TOO_LONG
├── UnsupportedMediaType  415  UNSUPPORTED_MEDIA_TYPE
├── Misdirected           421  MISDIRECTED_REQUEST: it names a host that the service does not go by
├── Invalid               422  INVALID_REQUEST: fields that are unknown, missing or of the wrong type
│   ├── InvalidStudy           INVALID_STUDY: a definition that can't be run
│   ├── InvalidDataset         INVALID_DATASET: a file that can't be read as a data set
│   ├── TooExpensive           TOO_EXPENSIVE: to answer it takes more time or memory than one request may
│   └── IdempotencyMismatch    IDEMPOTENCY_MISMATCH: the key was used with another request
├── TooManyRequests       429  TOO_MANY_REQUESTS
├── HeadersTooLarge       431  HEADERS_TOO_LARGE
├── LibraryMissing        501  LIBRARY_MISSING: an optional library that this needs isn't installed
└── Unready               503  UNREADY: the database can't be reached or has another schema
    └── SchemaTooNew           UNREADY: a newer schema that needs newer code
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one place of a request; `loc` is its path, as in pydantic."""

    loc: tuple[str | int, ...]
    msg: str


class FettleError(Exception):
    """An error with a stable `code`, an HTTP `status`, a `title`, a detail in words and the places it is about.

    `headers` are those that its answer has beside the usual ones.
    """

    status = 500
    code = "INTERNAL"
    title = "Internal error"

    def __init__(self, detail: str, *, code: str | None = None, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.headers: tuple[tuple[str, str], ...] = ()
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled whole, whatever a subclass' constructor takes: errors come out of child processes."""
        return _unpickled, (type(self), self.args, self.__dict__)


def _unpickled(kind: type[FettleError], arguments: tuple[Any, ...], state: dict[str, Any]) -> FettleError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(state)
    return error


class BadRequest(FettleError):
    """The request can't be read."""

    status, code, title = 400, "BAD_REQUEST", "Malformed request"


class Unauthenticated(FettleError):
    """No API key came with the request, or one that isn't in force."""

    status, code, title = 401, "UNAUTHENTICATED", "Not authenticated"


class Forbidden(FettleError):
    """The API key may not do this."""

    status, code, title = 403, "FORBIDDEN", "Not allowed"


class NotFound(FettleError):
    """There is no such thing."""

    status, code, title = 404, "NOT_FOUND", "Not found"


class CrossOrigin(FettleError):
    """The page of another site sent it."""

    status, code, title = 403, "CROSS_ORIGIN", "Cross-origin request"


class Conflict(FettleError):
    """The request is fine, the state of things isn't."""

    status, code, title = 409, "CONFLICT", "Conflict"


class StateConflict(Conflict):
    """The resource's state doesn't allow the action."""

    code, title = "STATE_CONFLICT", "The state does not allow this"


class NameTaken(Conflict):
    """Another study, or data set, of the project has the name."""

    code, title = "NAME_TAKEN", "Name taken"


class DatasetInUse(Conflict):
    """Studies train on the data set."""

    code, title = "DATASET_IN_USE", "Data set in use"


class QuotaExceeded(Conflict):
    """The project may have no more of this; the detail says the limit and what to do."""

    code, title = "QUOTA_EXCEEDED", "Quota exceeded"


class RequestInFlight(Conflict):
    """The same Idempotency-Key is being served now."""

    code, title = "REQUEST_IN_FLIGHT", "Request in flight"


class DefinitionTooNew(Conflict):
    """A newer version stored the study's definition, with what this one doesn't know."""

    code, title = "DEFINITION_TOO_NEW", "Definition of a newer version"


class MigrationRefused(Conflict):
    """The schema isn't taken where it was asked to."""

    code, title = "MIGRATION_REFUSED", "Migration refused"


class LeaseLost(Conflict):
    """Another attempt holds the trial, or it is over."""

    code, title = "LEASE_LOST", "Lease lost"


class NotAcceptable(FettleError):
    """No representation that the client accepts."""

    status, code, title = 406, "NOT_ACCEPTABLE", "Not acceptable"


class RequestTimeout(FettleError):
    """The request did not arrive in time."""

    status, code, title = 408, "REQUEST_TIMEOUT", "Request timeout"


class PreconditionFailed(FettleError):
    """If-Match names another revision than the present one."""

    status, code, title = 412, "REVISION_MISMATCH", "Revision mismatch"


class BodyTooLarge(FettleError):
    """The body is over the limit."""

    status, code, title = 413, "BODY_TOO_LARGE", "Body too large"


class UriTooLong(FettleError):
    """The path and query are longer than any of the API."""

    status, code, title = 414, "URI_TOO_LONG", "URI too long"


class UnsupportedMediaType(FettleError):
    """The body is of another type than the route reads."""

    status, code, title = 415, "UNSUPPORTED_MEDIA_TYPE", "Unsupported media type"


class Misdirected(FettleError):
    """The request names a host that the service does not go by."""

    status, code, title = 421, "MISDIRECTED_REQUEST", "Misdirected request"


class Invalid(FettleError):
    """Fields that are unknown, missing, of the wrong type or out of range."""

    status, code, title = 422, "INVALID_REQUEST", "Invalid request"


class InvalidStudy(Invalid):
    """A definition that can't be run."""

    code, title = "INVALID_STUDY", "Invalid study definition"


class InvalidDataset(Invalid):
    """A file that can't be read as a data set."""

    code, title = "INVALID_DATASET", "Invalid data set"


class TooExpensive(Invalid):
    """To answer the request takes more time or memory than one request may."""

    code, title = "TOO_EXPENSIVE", "Too expensive"


class IdempotencyMismatch(Invalid):
    """The Idempotency-Key was used with another request."""

    code, title = "IDEMPOTENCY_MISMATCH", "Idempotency key reused"


class TooManyRequests(FettleError):
    """The caller has used up a budget of requests or streams; `Retry-After` says when to come again."""

    status, code, title = 429, "TOO_MANY_REQUESTS", "Too many requests"

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class HeadersTooLarge(FettleError):
    """The request's headers are too many or too large."""

    status, code, title = 431, "HEADERS_TOO_LARGE", "Request headers too large"


class LibraryMissing(FettleError):
    """An optional library that a request needs isn't installed where the service runs."""

    status, code, title = 501, "LIBRARY_MISSING", "A library is missing"

    def __init__(self, library: str, wanted: str, instead: str) -> None:
        super().__init__(f"{wanted} needs {library}, which isn't installed where the service runs. {instead}.")


class Unready(FettleError):
    """The service can't answer now: its database is away or of another schema, it has too much to do, or it stops."""

    status, code, title = 503, "UNREADY", "Not ready"


class SchemaTooNew(Unready):
    """The database has a newer schema, which needs newer code than this."""

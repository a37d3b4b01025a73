"""Every error that the service raises on purpose.

FettleError
├── BadRequest            400  BAD_REQUEST: broken JSON, a bad cursor
├── Unauthenticated       401  UNAUTHENTICATED: no API key, or one that isn't in force
├── Forbidden             403  FORBIDDEN: the key may not do this
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
├── PreconditionFailed    412  REVISION_MISMATCH: If-Match names another revision
├── BodyTooLarge          413  BODY_TOO_LARGE
├── UnsupportedMediaType  415  UNSUPPORTED_MEDIA_TYPE
├── Invalid               422  INVALID_REQUEST: fields that are unknown, missing or of the wrong type
│   ├── InvalidStudy           INVALID_STUDY: a definition that can't be run
│   ├── InvalidDataset         INVALID_DATASET: a file that can't be read as a data set
│   └── IdempotencyMismatch    IDEMPOTENCY_MISMATCH: the key was used with another request
├── LibraryMissing        501  LIBRARY_MISSING: an optional library that this needs isn't installed
└── Unready               503  UNREADY: the database can't be reached or has another schema
    └── SchemaTooNew           UNREADY: a newer schema that needs newer code
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one place of a request; `loc` is its path, as in pydantic."""

    loc: tuple[str | int, ...]
    msg: str


class FettleError(Exception):
    """An error with a stable `code`, an HTTP `status`, a `title`, a detail in words and the places it is about."""

    status = 500
    code = "INTERNAL"
    title = "Internal error"

    def __init__(self, detail: str, *, code: str | None = None, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        if code is not None:
            self.code = code


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


class PreconditionFailed(FettleError):
    """If-Match names another revision than the present one."""

    status, code, title = 412, "REVISION_MISMATCH", "Revision mismatch"


class BodyTooLarge(FettleError):
    """The body is over the limit."""

    status, code, title = 413, "BODY_TOO_LARGE", "Body too large"


class UnsupportedMediaType(FettleError):
    """The body is of another type than the route reads."""

    status, code, title = 415, "UNSUPPORTED_MEDIA_TYPE", "Unsupported media type"


class Invalid(FettleError):
    """Fields that are unknown, missing, of the wrong type or out of range."""

    status, code, title = 422, "INVALID_REQUEST", "Invalid request"


class InvalidStudy(Invalid):
    """A definition that can't be run."""

    code, title = "INVALID_STUDY", "Invalid study definition"


class InvalidDataset(Invalid):
    """A file that can't be read as a data set."""

    code, title = "INVALID_DATASET", "Invalid data set"


class IdempotencyMismatch(Invalid):
    """The Idempotency-Key was used with another request."""

    code, title = "IDEMPOTENCY_MISMATCH", "Idempotency key reused"


class LibraryMissing(FettleError):
    """An optional library that a request needs isn't installed where the service runs."""

    status, code, title = 501, "LIBRARY_MISSING", "A library is missing"

    def __init__(self, library: str, wanted: str, instead: str) -> None:
        super().__init__(f"{wanted} needs {library}, which isn't installed where the service runs. {instead}.")


class Unready(FettleError):
    """The database can't be reached, or has another schema than this code."""

    status, code, title = 503, "UNREADY", "Not ready"


class SchemaTooNew(Unready):
    """The database has a newer schema, which needs newer code than this."""

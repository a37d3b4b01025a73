"""What stands around all endpoints: limits on bodies close to them, answers to other origins and headers far out."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.api.headers import SafeHeaders
from app.api.limits import BodyLimit
from app.api.uploads import FORM_BYTES
from app.settings import Settings

METHODS = ("GET", "POST", "PATCH", "DELETE")
REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "Last-Event-ID")
ANSWER_HEADERS = ("ETag", "Location", "RateLimit", "RateLimit-Policy", "Retry-After")
PREFLIGHT_AGE_S = 600


def limit_bodies(app: FastAPI, settings: Settings) -> None:
    """Count what arrives for `app`, and how long it takes."""
    uploads = {"/v1/datasets": settings.max_upload_bytes + FORM_BYTES}
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, by_path=uploads, timeout_s=settings.body_timeout_s)


def answer_safely(app: FastAPI, settings: Settings) -> None:
    """Answer what browsers ask before they call from another origin, and say in all answers what they may not do."""
    if settings.origins:
        # No credentials: a key comes in a header that the page sets itself.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            expose_headers=ANSWER_HEADERS,
            max_age=PREFLIGHT_AGE_S,
        )
    app.add_middleware(SafeHeaders)

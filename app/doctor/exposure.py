"""Who could reach a service with these settings."""

from __future__ import annotations

from collections.abc import Iterator

from app.doctor.examination import Examination
from app.doctor.findings import Finding, ok, warning


def address(examination: Examination) -> Iterator[Finding]:
    """Look at the address, and at what guards it."""
    settings = examination.settings
    expected = "an address that only this machine reaches, or something that guards it"
    found = f"{settings.host}:{settings.port}"
    if settings.is_loopback:
        yield ok("exposure", expected, f"{found}, this machine alone")
    elif settings.allow_open:
        advice = "Have a proxy with authentication in front, or a private network: who reaches it may do everything."
        yield warning("exposure", expected, f"{found}, open to everybody who reaches it", advice)
    else:
        advice = "The API refuses to start there: set FETTLE_HOST=127.0.0.1, or FETTLE_ALLOW_OPEN=true."
        yield warning("exposure", expected, f"{found}, without anything that guards it", advice)

"""Who could reach a service with these settings, and what guards it."""

from __future__ import annotations

from collections.abc import Iterator

from app.api.exposure import OpenToStrangers, check_exposure, keys_in_force, pepper_of
from app.doctor.examination import Examination
from app.doctor.findings import Finding, failed, ok, warning


def address(examination: Examination) -> Iterator[Finding]:
    """Look at the address, and at the keys that guard it."""
    settings = examination.settings
    expected = "an address that only this machine reaches, or API keys"
    found = f"{settings.host}:{settings.port}"
    usable, alien = keys_in_force(settings) if examination.is_reached else (0, 0)
    keys = f"{usable} keys in force" if examination.is_reached else "keys unknown"
    if alien:
        advice = f"They are refused: bring back the secret of then to {pepper_of(settings).where}, or make new ones."
        yield warning("keys", "keys that this machine can check", f"{alien} made with another secret", advice)
    if settings.allow_open and not settings.is_loopback and not usable:
        advice = "Make keys (`fettle keys create`) and unset FETTLE_ALLOW_OPEN: who reaches it may do everything."
        yield warning("exposure", expected, f"{found}, open to everybody who reaches it", advice)
        return
    if not examination.is_reached and not settings.is_loopback:
        advice = "Whether there are keys, the database would say: without any the API refuses to start there."
        yield warning("exposure", expected, f"{found}, {keys}", advice)
        return
    try:
        check_exposure(settings)
    except OpenToStrangers as error:
        yield failed("exposure", expected, f"{found}, {keys}", str(error))
        return
    yield ok("exposure", expected, f"{found}, {keys}")

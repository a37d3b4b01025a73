"""Whether the database is there, quick, on time, and has this code's schema."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from importlib.resources import files

from sqlalchemy.exc import SQLAlchemyError

from app.doctor.examination import Examination
from app.doctor.findings import Finding, failed, ok, warning
from app.store.events import restores
from app.store.log import clock
from app.store.migrate import HEAD, schema_revision

ROUND_TRIPS = 9
SLOW_MS = 20.0
"""A worker makes two or three round trips a trial, an API process ten a second while streams are open."""
SKEW_S = 5.0


def reached(examination: Examination) -> Iterator[Finding]:
    """Connect, and measure the way there and the clocks."""
    expected = "a database that answers"
    if examination.is_sqlite and not examination.file.is_file():
        advice = "Start the service once, run `fettle migrate`, or name another --data-dir."
        yield failed("database", expected, f"no file {examination.place}", advice)
        return
    try:
        with examination.reading() as session:
            version = session.connection().dialect.server_version_info or ()
            took, skews = [], []
            for _ in range(ROUND_TRIPS):
                began, wall = time.perf_counter(), time.time()
                at = clock(session)
                took.append(time.perf_counter() - began)
                skews.append(at - (wall + took[-1] / 2))
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()
        advice = "Start the database, or correct FETTLE_DATABASE_URL; look at its log for refused connections."
        yield failed("database", expected, f"{examination.place}: {cause[0] if cause else error}", advice)
        return
    examination.is_reached = True
    name = "SQLite" if examination.is_sqlite else "PostgreSQL"
    latency_ms = 1e3 * statistics.median(took)
    about = f"{name} {'.'.join(map(str, version))} at {examination.place}, {latency_ms:.1f} ms a round trip"
    if latency_ms > SLOW_MS:
        advice = "Trials and streams wait for it: look at its load, or move it closer."
        yield warning("database", f"a round trip below {SLOW_MS:g} ms", about, advice)
    else:
        yield ok("database", expected, about)
    yield clock_finding(min(skews, key=abs))


def clock_finding(skew_s: float) -> Finding:
    """What a database whose clock is `skew_s` ahead of this machine's means."""
    expected = f"clocks that differ by less than {SKEW_S:g} s"
    if abs(skew_s) < SKEW_S:
        return ok("clock", expected, f"{abs(skew_s):.2f} s between this machine and the database")
    found = f"the database's clock is {abs(skew_s):,.1f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's"
    advice = "Leases go by the database's clock alone and are safe; times in logs don't agree: set up NTP."
    return warning("clock", expected, found, advice)


def schema(examination: Examination) -> Iterator[Finding]:
    """Compare the database's schema with this code's."""
    if not examination.is_reached:
        return
    expected = f"schema revision {HEAD}, this version's"
    with examination.reading() as session:
        found = schema_revision(session.connection())
    if found == HEAD:
        examination.has_schema = True
        yield ok("schema", expected, found)
        with examination.reading() as session:
            lives = restores(session)
        if lives:
            yield ok("restores", "a database whose past is known", f"restored {lives} times")
    elif found is None:
        yield failed("schema", expected, "none: nothing of Fettle is in it", "Run `fettle migrate`.")
    elif found in _known_revisions():
        advice = "Back it up, stop the processes of the older version, then run `fettle migrate`."
        yield failed("schema", expected, f"{found}, of an older version", advice)
    else:
        yield failed("schema", expected, f"{found}, of a newer version", "Upgrade Fettle on this machine.")


def _known_revisions() -> set[str]:
    """The revisions that this code knows: those of older versions, and its own."""
    names = (file.name for file in files("migrations").joinpath("versions").iterdir())
    return {name.partition("_")[0] for name in names if name[:4].isdigit()}

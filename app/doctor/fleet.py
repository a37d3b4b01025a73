"""The workers: who lives, what they are, and what nobody of them can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from app import __version__
from app.doctor.examination import Examination
from app.doctor.findings import Finding, failed, ok, warning
from app.domain.json import loads
from app.store.leases import overdue
from app.store.quotas import trial_room
from app.store.studies import idle_studies, running_studies
from app.store.workers import LIVE_HEARTBEAT_S, heard_of, live_offers, pending_reason, unread

LATE_S = 15.0
"""An expired lease is taken back within five seconds, by any process."""
LOST_S = 86_400.0
"""A worker that was lost longer ago is history."""
AHEAD_S = 5.0
NAMED = 5
MOST_STUDIES = 1_000
"""Studies without any trial under way that are looked at."""


def workers_and_leases(examination: Examination) -> Iterator[Finding]:
    """Look at the workers' rows, the studies that wait, and leases that nobody takes back."""
    if not examination.has_schema:
        return
    yield from _workers(examination)
    yield _pending(examination)
    yield _leases(examination)


def _workers(examination: Examination) -> Iterator[Finding]:
    with examination.reading() as session:
        rows, waiting = heard_of(session, LOST_S), running_studies(session)
    live = [(w, a) for w, a in rows if a <= LIVE_HEARTBEAT_S and w.state != "STOPPED"]
    lost = [(w, a) for w, a in rows if a > LIVE_HEARTBEAT_S and w.state != "STOPPED"]
    draining = sum(w.drain_requested or w.state == "DRAINING" for w, _ in live)
    expected = "a live worker where studies run"
    devices = ", ".join(f"{count} on {device}" for device, count in sorted(Counter(w.device for w, _ in live).items()))
    families = sorted({family for w, _ in live for family in loads(w.families)})
    found = f"{len(live)} live ({devices or 'none'}), {draining} of them draining"
    found += f"; families: {', '.join(families)}" if families else ""
    if waiting and len(live) == draining:
        found += f"; {waiting} studies run"
        yield warning("workers", expected, found, "Start one: `fettle worker`; look at its log.")
    else:
        yield ok("workers", expected, found)
    expected = "workers that are heard of until they stop"
    if lost:
        named = ", ".join(f"{w.id} ({a:,.0f} s ago)" for w, a in lost[:NAMED])
        advice = "They were killed or cut off, and their trials were taken back: look at their logs, start others."
        yield warning("lost workers", expected, f"{len(lost)} in the last day: {named}", advice)
    else:
        yield ok("lost workers", expected, "none in the last day")
    yield from _heartbeats([(w.id, a) for w, a in rows])
    yield _versions(Counter(w.version for w, _ in live))


def _heartbeats(ages: list[tuple[str, float]]) -> Iterator[Finding]:
    ahead = [(name, -age) for name, age in ages if age < -AHEAD_S]
    if ahead:
        found = f"{ahead[0][0]} was heard of {ahead[0][1]:,.1f} s in the future"
        advice = "The database's clock was set back: leases last longer by as much. Let NTP slew it, never step it."
        yield failed("heartbeats", "heartbeats of the past, by the database's clock", found, advice)


def _versions(versions: Counter[str]) -> Finding:
    expected = f"workers of this version, {__version__}"
    others = {version: count for version, count in versions.items() if version != __version__}
    if others:
        found = ", ".join(f"{count} of {version}" for version, count in sorted(others.items()))
        return warning("versions", expected, found, "Upgrade them: drain, install, start again.")
    return ok("versions", expected, f"{versions.total()} of {__version__}")


def _pending(examination: Examination) -> Finding:
    expected = "studies that somebody can run"
    with examination.reading() as session:
        offers = live_offers(session)
        idle = idle_studies(session, MOST_STUDIES)
        cannot_read = unread(session, idle)
        room = {project: trial_room(session, project) for project in {study.project for study in idle}}
        why = {s.id: pending_reason(s, offers, cannot_read.get(s.id, {}), room[s.project]) for s in idle}
    reasons = [f"{study.name!r}: {why[study.id]}" for study in idle if why[study.id] is not None]
    if not reasons:
        return ok("pending studies", expected, "none waits for a worker that isn't there")
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    advice = "Start workers with the device, labels and families that they ask for, or cancel them."
    return warning("pending studies", expected, "; ".join(reasons[:NAMED]) + more, advice)


def _leases(examination: Examination) -> Finding:
    expected = f"expired leases that are taken back within {LATE_S:g} s"
    with examination.reading() as session:
        count, longest = overdue(session, LATE_S)
    if count:
        found = f"{count} trials hold leases that expired up to {longest:,.0f} s ago"
        advice = "No API process and no worker runs, or none reaches the database: start one and look at its log."
        return failed("leases", expected, found, advice)
    return ok("leases", expected, "none is overdue")

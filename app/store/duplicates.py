"""Trials that were sampled like another one of their study: what becomes of them when they are to start.

The study's row is locked, so that what is decided here holds for all workers: two trials that start one after the other
see each other. Two that train at the same time are both trained (`reuse` needs a result to take).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, bindparam, select, update

from app.domain.json import dumps, loads
from app.domain.trial import BLAMELESS_REASONS, Proposal, TrialState
from app.store.fence import FENCED
from app.store.locking import LockedStudy
from app.store.log import NewEvent
from app.store.query import DIALECTS, one_of, unindexed
from app.store.settling import count_end, trial_finished
from app.store.tables import Trial, table_of

_t = table_of(Trial)
_COPIED = ("feasible", "objective_values", "value", "metrics", "selected_epoch", "violations")
"""What a trial takes over of the one that was trained."""
_ALIKE = {
    dialect: select(*(_t.c[name] for name in ("number", "state", "reason", "identity", *_COPIED)))
    .where(
        _t.c.study_id == bindparam("study"),
        one_of(_t.c.identity, "identities", dialect),
        _t.c.state.not_in([TrialState.WAITING]),
    )
    .order_by(unindexed(_t.c.number))
    for dialect in DIALECTS
}
_REUSE = (
    update(_t)
    .where(*FENCED)
    .values(
        state=TrialState.COMPLETE,
        epochs=0,
        curve="[]",
        attempt=bindparam("next_attempt"),
        hyperparameters=bindparam("all_values"),
        varied=bindparam("varied_values"),
        sampled=bindparam("drawn"),
        system_attributes=bindparam("attributes"),
        started_at=bindparam("at"),
        finished_at=bindparam("at"),
        finish_seq=bindparam("seq"),
        finish_token=bindparam("token"),
        lease_token=None,
        lease_expires_at=None,
        reused_from=bindparam("source"),
        identity=bindparam("hash"),
        **{name: bindparam(f"copied_{name}") for name in _COPIED},
        **{name: bindparam(name) for name in ("worker_id", "device")},
    )
)


@dataclass(slots=True)
class Sorted:
    """Proposals by what becomes of them: trained, or done by another trial's result; the rest must be drawn anew."""

    trained: list[Proposal] = field(default_factory=list)
    reused: list[tuple[Proposal, Row[Any]]] = field(default_factory=list)


def sort_duplicates(study: LockedStudy, proposals: Sequence[Proposal]) -> Sorted:
    """What becomes of proposals that are about to start, in the order given."""
    found = Sorted()
    known = _alike(study, {p.identity for p in proposals if p.identity is not None and p.on_duplicate != "train"})
    for proposal in proposals:
        rows = known.get(proposal.identity or "", [])
        complete = next((row for row in rows if row.state == TrialState.COMPLETE), None)
        if proposal.on_duplicate == "reuse" and complete is not None:
            found.reused.append((proposal, complete))
        elif proposal.on_duplicate != "redraw" or not any(row.reason not in BLAMELESS_REASONS for row in rows):
            found.trained.append(proposal)
    return found


def _alike(study: LockedStudy, identities: set[str]) -> dict[str, list[Row[Any]]]:
    """The started trials of the study with these identities, by number."""
    by_identity: dict[str, list[Row[Any]]] = {}
    if identities:
        statement = _ALIKE[study.connection.dialect.name]
        for row in study.connection.execute(statement, {"study": study.id, "identities": sorted(identities)}):
            by_identity.setdefault(row.identity, []).append(row)
    return by_identity


def finish_reused(
    study: LockedStudy, reused: Sequence[tuple[Proposal, Row[Any]]], worker_id: str, device: str
) -> list[NewEvent]:
    """Record reservations as COMPLETE with the results of trials that were sampled alike."""
    if not reused:
        return []
    metrics = loads(study.objective_metrics)
    changes, events = [], []
    for proposal, source in reused:
        reservation = proposal.reservation
        study.waiting -= 1
        study.leased -= 1
        study.since_improvement += 1
        changes.append(
            {
                "key": reservation.trial_id,
                "token": reservation.token,
                "next_attempt": reservation.attempt,
                "all_values": proposal.text if proposal.varied is None else None,
                "varied_values": None if proposal.varied is None else proposal.text,
                "drawn": dumps(proposal.sampled),
                "attributes": dumps(proposal.system_attributes),
                "at": study.at,
                "seq": count_end(study, TrialState.COMPLETE, None),
                "source": source.number,
                "hash": proposal.identity,
                "worker_id": worker_id,
                "device": device,
                **{f"copied_{name}": getattr(source, name) for name in _COPIED},
            }
        )
        where = f'"worker_id":{dumps(worker_id)},"device":{dumps(device)}'
        where += "" if proposal.varied is None else ',"omits_fixed":true'
        started = f'{{"hyperparameters":{proposal.text},"attempt":{reservation.attempt},{where}}}'
        events.append(NewEvent("trial.started", started, trial=reservation.number))
        values = dict(zip(metrics, loads(source.objective_values or "[]"), strict=False))
        more = {"feasible": source.feasible, "values": values, "reused_from": source.number}
        events.append(trial_finished(reservation.number, TrialState.COMPLETE, None, seconds=0.0, **more))
    study.connection.execute(_REUSE, changes)
    return events

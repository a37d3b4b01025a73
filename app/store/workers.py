"""Reading workers: who lives, what they hold, and why a study has none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.domain.families import FAMILIES
from app.domain.json import loads
from app.domain.study import StudyState
from app.errors import NotFound
from app.store.engine import now
from app.store.fleet import UNREAD, Offer
from app.store.optuna import study_attributes
from app.store.quotas import TrialRoom
from app.store.tables import Study, Trial, Worker

LIVE_HEARTBEAT_S = 15.0
"""A worker silent for longer is not counted on: three of its heartbeats, or more, are missing."""


def list_workers(session: Session, *, after: str | None, limit: int) -> list[tuple[Worker, bool]]:
    """Up to `limit` workers after an id, each with whether it lives."""
    query = select(Worker, Worker.heartbeat_at > now() - LIVE_HEARTBEAT_S).order_by(Worker.id).limit(limit)
    if after is not None:
        query = query.where(Worker.id > after)
    return [(worker, bool(fresh) and worker.state != "STOPPED") for worker, fresh in session.execute(query)]


def drain_worker(session: Session, worker_id: str) -> tuple[Worker, bool]:
    """Ask a worker to finish what it holds and stop; it is seen at its next heartbeat.

    Raises:
        NotFound: there is no such worker.
    """
    changed = session.scalar(
        update(Worker).where(Worker.id == worker_id).values(drain_requested=True).returning(Worker.id)
    )
    if changed is None:
        raise NotFound(f"Expected the id of a worker. Received: {worker_id[:100]!r}", code="WORKER_NOT_FOUND")
    query = select(Worker, Worker.heartbeat_at > now() - LIVE_HEARTBEAT_S).where(Worker.id == worker_id)
    worker, fresh = session.execute(query.execution_options(populate_existing=True)).one()
    return worker, bool(fresh) and worker.state != "STOPPED"


def running_trials(session: Session, project: str, worker_ids: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """The trials of a project that each worker trains now, as study id and number."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    query = (
        select(Trial.worker_id, Study.public_id, Trial.number)
        .join(Study, Study.id == Trial.study_id)
        .where(Trial.lease_token.is_not(None), Trial.state == "RUNNING", Trial.worker_id.in_(worker_ids))
        .where(Study.project == project)
        .order_by(Study.id, Trial.number)
    )
    for worker_id, study_id, number in session.execute(query):
        found[worker_id or ""].append((study_id, number))
    return found


def projects_served(session: Session, worker_id: str) -> list[str]:
    """The projects whose trials a worker holds, reserved or running."""
    query = (
        select(Study.project)
        .join(Trial, Trial.study_id == Study.id)
        .where(Trial.lease_token.is_not(None), Trial.worker_id == worker_id)
        .distinct()
    )
    return list(session.scalars(query.order_by(Study.project)))


def live_offers(session: Session) -> list[Offer]:
    """What the workers offer that live and take trials."""
    query = select(Worker).where(
        Worker.heartbeat_at > now() - LIVE_HEARTBEAT_S, Worker.state == "ACTIVE", Worker.drain_requested.is_(False)
    )
    return [
        Offer(w.device, loads(w.families), loads(w.labels), w.memory_mb, loads(w.family_versions), w.id)
        for w in session.scalars(query)
    ]


def is_pending(study: Study) -> bool:
    """Whether the study should run, and nothing of it does."""
    return study.state == StudyState.RUNNING and study.leased == 0


def unread(session: Session, studies: Sequence[Study]) -> dict[int, dict[str, str]]:
    """Of those studies that wait for workers: why which worker can't read them, in words, by study and worker."""
    waiting = {study.id: study.revision for study in studies if is_pending(study)}
    if not waiting:
        return {}
    found: dict[int, dict[str, str]] = defaultdict(dict)
    for study_id, notes in study_attributes(session, list(waiting), UNREAD).items():
        for worker_id, note in notes.items():
            if note["revision"] == waiting[study_id]:
                found[study_id][worker_id] = note["words"]
    return found


def pending_reason(
    study: Study, offers: Sequence[Offer], unread: Mapping[str, str], room: TrialRoom | None = None
) -> str | None:
    """Why nothing of the study runs now, in words: its project has no room, no live worker offers what it needs, or all
    that do are `unread`.
    """
    if not is_pending(study):
        return None
    held_back = None if room is None else room.reason(study.generation or 1)
    if held_back is not None:
        return held_back
    family = FAMILIES.get(study.family or "")
    if family is not None and not family.trained_here:
        return "No outside program holds a trial: they take them by `:ask`."
    if not offers:
        return "No live worker: start one with `fettle worker`."
    able = [offer for offer in offers if study.family in offer.families]
    if not able:
        return f"No live worker offers the family {study.family!r}."
    others = sorted({offer.versions.get(study.family or "", "") for offer in able})
    able = [offer for offer in able if offer.trains(study.family, study.family_version)]
    if not able:
        wanted = f"version {study.family_version!r} of the family {study.family!r}"
        return f"No live worker offers {wanted}; those with the family have {', '.join(others)}."
    there = [offer for offer in able if offer.takes(study.device, {})]
    if not there:
        offered = ", ".join(sorted({offer.device for offer in able}))
        return f"No live worker offers the device {study.device!r}; those with the family have {offered}."
    labels = loads(study.worker_labels)
    left = [offer for offer in there if offer.takes(study.device, labels)]
    if not left:
        return f"No live worker has the labels {', '.join(f'{k}={v}' for k, v in labels.items())}."
    if all(offer.worker_id in unread for offer in left):
        return f"No live worker can read the study: upgrade them. {unread[str(left[0].worker_id)]}"
    return None

"""What a worker writes about itself, and the studies that it may take trials from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.orm import Session

from app import __version__
from app.domain.json import dumps, loads
from app.domain.study import StudyState
from app.store.engine import now
from app.store.log import clock
from app.store.optuna import set_study_attribute
from app.store.quotas import running_quota, trials_under_way
from app.store.reserving import generation_room
from app.store.tables import Study, Worker

UNREAD = "unread"
"""The scope of attributes in which workers say that they can't read a study."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a worker can do: its device (`cpu`, `gpu:0`) and the memory of that, its families, and its labels.

    `versions` are those of the families; of one that is not named there it takes any.
    """

    device: str
    families: Sequence[str]
    labels: Mapping[str, str]
    memory_mb: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    worker_id: str | None = None

    def trains(self, family: str | None, version: str | None) -> bool:
        """Whether it trains a family in a version; None: in any."""
        if family is None or family not in self.families:
            return False
        return version is None or self.versions.get(family, version) == version

    def takes(self, device: str, labels: Mapping[str, str]) -> bool:
        """Whether a study that wants `device` (`auto`: any) and `labels` may run here."""
        fits = device in ("auto", self.device) or device == self.device.partition(":")[0]
        return fits and all(self.labels.get(key) == value for key, value in labels.items())


@dataclass(frozen=True, slots=True)
class Claimable:
    """A study with trials to reserve."""

    study_id: int
    public_id: str
    revision: int
    priority: int
    leased: int
    best_value: float | None


def register_worker(session: Session, worker_id: str, host: str, pid: int, offer: Offer) -> None:
    """Add the worker's row, ACTIVE from now on; safe to repeat."""
    if session.get(Worker, worker_id) is not None:
        return
    at = clock(session)
    session.execute(
        insert(Worker).values(
            id=worker_id,
            host=host,
            pid=pid,
            state="ACTIVE",
            device=offer.device,
            families=dumps(list(offer.families)),
            family_versions=dumps(dict(offer.versions)),
            labels=dumps(dict(offer.labels)),
            version=__version__,
            memory_mb=offer.memory_mb,
            started_at=at,
            heartbeat_at=at,
        )
    )


def heartbeat(session: Session, worker_id: str) -> bool:
    """Say that the worker lives; whether it was asked to drain."""
    wanted = session.scalar(
        update(Worker).where(Worker.id == worker_id).values(heartbeat_at=now()).returning(Worker.drain_requested)
    )
    return bool(wanted)


def set_worker_state(session: Session, worker_id: str, state: str) -> None:
    """Set the worker's state: ACTIVE, DRAINING or STOPPED."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(state=state, heartbeat_at=now()))


def set_offer(session: Session, worker_id: str, offer: Offer) -> None:
    """Say that the worker trains other families than it did."""
    values = {"families": dumps(list(offer.families)), "family_versions": dumps(dict(offer.versions))}
    session.execute(update(Worker).where(Worker.id == worker_id).values(values))


def note_unread(session: Session, study_id: int, revision: int, worker_id: str, words: str) -> None:
    """Say why the worker leaves a study alone that it can't read, at this revision of its definition."""
    # An attribute of its own scope: Optuna sees those of users and systems alone, and it goes with the study.
    set_study_attribute(session, study_id, UNREAD, worker_id, {"revision": revision, "words": words})


def claimable(session: Session, offer: Offer) -> list[Claimable]:
    """Studies that have a trial for this worker now: by priority, then those with the fewest trials under way."""
    query = select(*_CLAIM_COLUMNS).where(
        Study.managed,
        Study.state == StudyState.RUNNING,
        Study.halt_reason.is_(None),
        Study.family.in_(list(offer.families)),
    )
    studies = session.execute(query).all()
    held_back = _held_back(session, studies)
    found = [
        Claimable(s.id, s.public_id, s.revision, s.priority, s.leased, s.best_value)
        for s in studies
        if s.project not in held_back
        and _has_work(s)
        and offer.trains(s.family, s.family_version)
        and offer.takes(s.device, loads(s.worker_labels))
    ]
    return sorted(found, key=lambda c: (-c.priority, c.leased, c.study_id))


_CLAIM_COLUMNS = (
    Study.id, Study.public_id, Study.revision, Study.priority, Study.device, Study.worker_labels, Study.best_value,
    Study.max_parallel, Study.generation, Study.leased, Study.waiting, Study.running, Study.next_number,
    Study.trial_limit, Study.sampled_count, Study.sample_limit, Study.generation_size, Study.finished_count,
    Study.family, Study.family_version, Study.project, running_quota().label("running_quota"),
)  # fmt: skip


def _held_back(session: Session, studies: Sequence[Row[*tuple[Any, ...]]]) -> set[str]:
    """The projects of these studies that run as many trials as they may."""
    limited = {s.project: s.running_quota for s in studies if s.running_quota is not None}
    return {p for p, quota in limited.items() if trials_under_way(session.connection(), p) >= quota}


def _has_work(study: Row[*tuple[Any, ...]]) -> bool:
    if study.max_parallel is not None and study.leased >= study.max_parallel:
        return False
    unleased = study.waiting - (study.leased - study.running)
    if study.generation is not None and study.leased and not unleased:
        return False
    fresh = (study.trial_limit is None or study.next_number < study.trial_limit) and (
        study.sample_limit is None or study.sampled_count < study.sample_limit
    )
    return unleased > 0 or (fresh and generation_room(study, 1) > 0)


def halted_studies(session: Session, study_ids: Sequence[int]) -> set[int]:
    """Those of the studies whose limit or target is met: their running trials stop at the next epoch."""
    if not study_ids:
        return set()
    return set(session.scalars(select(Study.id).where(Study.id.in_(study_ids), Study.halt_reason.is_not(None))))

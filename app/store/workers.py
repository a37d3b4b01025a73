"""Workers: what they say of themselves, the studies they may take from, who lives, and the families they brought."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, insert, select, text, update
from sqlalchemy.orm import Session

from app import __version__
from app.domain.families import FAMILIES, Family
from app.domain.families.plugin import as_json, from_json
from app.domain.json import dumps, loads
from app.domain.registry import BUILT_IN, Families
from app.domain.study import StudyState
from app.errors import NotFound
from app.store.engine import now
from app.store.log import clock
from app.store.optuna import set_study_attribute, study_attributes
from app.store.quotas import TrialRoom, running_quota, trials_under_way
from app.store.reserving import generation_room
from app.store.tables import AdvertisedFamily, Study, Trial, Worker

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


LIVE_HEARTBEAT_S = 15.0
"""A worker silent for longer is not counted on: three of its heartbeats, or more, are missing."""


def list_workers(session: Session, *, after: str | None, limit: int) -> list[tuple[Worker, bool]]:
    """Up to `limit` workers after an id, each with whether it lives."""
    query = select(Worker, Worker.heartbeat_at > now() - LIVE_HEARTBEAT_S).order_by(Worker.id).limit(limit)
    if after is not None:
        query = query.where(Worker.id > after)
    return [(worker, bool(fresh) and worker.state != "STOPPED") for worker, fresh in session.execute(query)]


def heard_of(session: Session, within_s: float) -> list[tuple[Worker, float]]:
    """The workers that were heard of within so many seconds, each with the seconds since, by the database's clock."""
    age = (now() - Worker.heartbeat_at).label("age")
    query = select(Worker, age).where(Worker.heartbeat_at > now() - within_s).order_by(Worker.id)
    return [(worker, float(seconds)) for worker, seconds in session.execute(query)]


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


_ADVERTISE = text(
    "INSERT INTO fettle_families (name, version, declaration, advertised_at) "
    "VALUES (:name, :version, :declaration, :at) ON CONFLICT (name, version) "
    "DO UPDATE SET declaration = excluded.declaration, advertised_at = excluded.advertised_at"
)


def advertise(session: Session, families: Iterable[Family]) -> None:
    """Make known that workers train these families: each counts from now on as the newest of its name."""
    at = clock(session)
    # In one order everywhere: workers that start together don't wait for one another in a circle.
    for family in sorted(families, key=lambda f: (f.name, f.version)):
        row = {"name": family.name, "version": family.version, "declaration": dumps(as_json(family)), "at": at}
        session.execute(_ADVERTISE, row)


def known_families(session: Session) -> Families:
    """The built-in families, and those that were ever advertised."""
    query = select(AdvertisedFamily).order_by(AdvertisedFamily.advertised_at, AdvertisedFamily.version)
    advertised = [from_json(loads(row.declaration)) for row in session.scalars(query)]
    return BUILT_IN.and_also(family for family in advertised if family.name not in BUILT_IN)

"""A worker: reserve → sample → train → record, read from top to bottom.

The supervisor holds leases, samplers' caches and the database's credentials, and owns three things with lives of their
own: the keeper thread, the feeder of sampled trials, the trainer child. It outlives any number of trainers.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import FrameType

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.domain.registry import Families
from app.errors import Unready
from app.scratch import sweep
from app.settings import Settings
from app.store import workers
from app.store.arrival import await_database
from app.store.engine import Database
from app.store.migrate import check_schema
from app.store.workers import advertise
from worker.artifacts import ArtifactWriter
from worker.checkpoints import Sweeper
from worker.claims import Claims
from worker.datasets import DatasetCache, Local
from worker.device import Device, resolve
from worker.feeder import Feeder
from worker.lease_keeper import Keeper
from worker.ledger import Ledger, StackSettings
from worker.memory import device_memory_mb, host_memory_mb, largest_trainer_mb
from worker.plugin_loading import installed
from worker.pool import PooledTrial
from worker.stack_run import StackRun, slots_of
from worker.trainer.channel import ChannelBroken
from worker.trainer.process import Trainer, TrainerCrashed, TrainerLost
from worker.trainer.protocol import MADE_DATASETS, Prepare

SHORTEST_IDLE_S = 0.05
LONGEST_IDLE_S = 0.2
"""Waits between looks for work: doubling from the shortest to the longest while there is none."""
RESTART_DELAY_S = 1.0
"""Pause before a trainer that died without work is replaced."""
PROGRAM_TIMINGS = "program-timings.json"
"""The file in the data directory that remembers how fast compiled programs are."""
BROKEN_STARTS = 3
"""A worker whose trainers die this often in a row before they are ready gives up: TensorFlow can't be imported, say."""

log = structlog.get_logger(__name__)


class TrainerBroken(Exception):
    """No trainer gets ready on this machine: something is wrong with its installation, not with a trial."""


class Supervisor:
    """One worker process. `run` returns once it was drained."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._draining = self._signalled = False
        # Without the database a worker has nothing else to do, and its trials go on where it left them.
        self._database = Database(settings.resolved_database_url, is_patient=lambda: not self._draining)
        self._device: Device = resolve(settings.device)
        self._plugins = installed()
        for name, problem in self._plugins.broken.items():
            log.warning("plugin_not_offered", plugin=name, error=problem)
        self._registry = self._plugins.registry()
        self._families = offered_families(settings.families, self._registry)
        self._worker_id = f"{socket.gethostname()[:64]}-{os.getpid()}-{secrets.token_hex(3)}"
        self._memory_mb = settings.device_memory_mb or device_memory_mb(self._device)
        self._kill_memory_mb = settings.trainer_kill_memory_mb or largest_trainer_mb(
            host_memory_mb(), settings.workers_on_machine
        )
        labels = parse_labels(settings.worker_labels)
        self._offer = workers.Offer(self._device.label, self._families, labels, self._memory_mb, self._versions())
        self._keeper = Keeper(self._database, self._worker_id, settings.lease_ttl_s)
        self._claims = Claims(
            self._database, self._keeper, self._worker_id, self._offer, settings.lease_ttl_s, self._registry
        )
        self._feeder = Feeder(self._database, self._keeper, self._claims)
        self._artifacts = ArtifactWriter(settings.resolved_artifact_url)
        self._sweeper = Sweeper(self._database, self._artifacts)
        self._datasets = DatasetCache(settings, self._database)
        self._trainer: Trainer | None = None
        self._drain_at: float | None = None
        self._broken_starts = 0

    def check(self) -> None:
        """Look whether the worker can start; waits for the database and for somebody to migrate it.

        Raises:
            Unready: the database did not come, refuses, or has another schema.
        """
        await_database(self._database, lambda: check_schema(self._database), self._settings.database_wait_s)
        if not self._database.is_sqlite and not self._settings.artifact_url:
            # Right where the API shares this machine's data directory, and lost models where it doesn't.
            log.warning(
                "artifacts_in_data_dir", path=self._settings.resolved_artifact_url, hint="set FETTLE_ARTIFACT_URL"
            )
        if not self._database.is_sqlite and not self._settings.dataset_url:
            log.warning("datasets_in_data_dir", path=self._settings.resolved_dataset_url, hint="set FETTLE_DATASET_URL")

    @property
    def misfit(self) -> str | None:
        """Why the worker had to stop: the database's schema was changed to one that it doesn't fit."""
        return self._keeper.misfit

    @property
    def drained_on_request(self) -> bool:
        """Whether somebody asked the service to drain this worker, and nobody this process to end."""
        return self._keeper.drain_requested.is_set() and self._keeper.misfit is None and not self._signalled

    def why_misfit(self) -> str | None:
        """As `misfit`, looked at now: what a statement that failed may come of."""
        try:
            check_schema(self._database)
        except Unready as error:
            return error.detail
        except DBAPIError:
            return None
        return self._keeper.misfit

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or a request to drain; then finish or give back what runs."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        data_dir = self._settings.data_dir
        swept = sweep() + self._datasets.sweep() + sweep(data_dir) + sweep(data_dir / MADE_DATASETS)
        if swept:
            log.info("scratch_swept", worker=self._worker_id, folders=swept)
        self._trainer = self._new_trainer()
        self._database.run(self._register)
        self._keeper.start()
        log.info("worker_started", worker=self._worker_id, device=self._device.label, families=self._families)
        try:
            self._work()
        except DBAPIError as error:
            if not self._draining:
                raise
            log.warning("left_without_database", worker=self._worker_id, error=str(error.orig))
            if self._trainer is not None:
                self._trainer.kill()  # in the middle of a stack it takes no other word
                self._trainer = None
        finally:
            self._leave()

    def _register(self, session: Session) -> None:
        """Say that this worker is there, and what plugins of it declare."""
        workers.register_worker(session, self._worker_id, socket.gethostname(), os.getpid(), self._offer)
        advertise(session, [family for family in self._plugins.families if family.name in self._families])

    def _versions(self) -> dict[str, str]:
        """The version of each family that is offered."""
        return {f.name: f.version for f in self._registry if f.name in self._families}

    def _withdraw(self, trainer: Trainer) -> None:
        """Offer no longer what the trainer's side of a plugin can't build."""
        broken = {} if trainer.ready is None else trainer.ready.broken
        lost = [name for name in broken if name in self._families]
        if not lost:
            return
        for name in lost:
            log.warning("plugin_not_offered", plugin=name, error=broken[name])
        self._families = [name for name in self._families if name not in lost]
        self._offer = replace(self._offer, families=self._families, versions=self._versions())
        self._database.run(lambda session: workers.set_offer(session, self._worker_id, self._offer))

    def _work(self) -> None:
        idle_s = SHORTEST_IDLE_S
        while not self._should_drain():
            self._keeper.check()
            self._sweeper.sweep()
            trainer = self._tend_trainer()
            families = trainer.families()
            while trainer.late_files:
                self._artifacts.let_go(trainer.late_files.pop())
            self._withdraw(trainer)
            busy = bool(families) and self._feeder.feed(families, hungry=True)
            trials = self._feeder.take(families)
            if trials:
                self._train(trainer, families, trials)
                idle_s = SHORTEST_IDLE_S
            elif not busy:
                time.sleep(idle_s)
                idle_s = min(2 * idle_s, LONGEST_IDLE_S)

    def _train(self, trainer: Trainer, families: Sequence[str], trials: list[PooledTrial]) -> None:
        """Train a stack; a trainer that it breaks is replaced. `families` are those the trainer has announced."""
        settings = StackSettings(
            self._worker_id,
            self._device.label,
            self._settings.lease_ttl_s,
            self._settings.hang_timeout_s,
            self._settings.checkpoint_interval_s,
            self._memory_mb,
            self._kill_memory_mb,
        )
        study = trials[0].study
        data = self._datasets.local(study.definition.dataset, self._should_drain)
        if data is None:
            self._feeder.put_back(trials)
            return
        ledger = Ledger(self._database, self._keeper, self._claims, self._feeder, self._artifacts, settings, study)
        may_refill = partial(self._may_refill, trainer, ledger)
        stack = StackRun(ledger, self._keeper, self._feeder, settings, trials, may_refill, data)
        trainer.prepared.add(trials[0].signature)
        try:
            stack.run(trainer, lambda: self._look_ahead(trainer, families), self._grace_end)
        except (ChannelBroken, TrainerLost) as error:
            lost = error if isinstance(error, TrainerLost) else TrainerCrashed(f"{trainer.death()} ({error})")
            log.warning(
                "trainer_lost",
                worker=self._worker_id,
                study=study.public_id,
                trials=[member.trial.proposal.reservation.number for member in stack.live],
                error=str(lost),
            )
            stack.abandon(lost)
            self._artifacts.clear_scratch()
            self._trainer = None if self._should_drain() else self._new_trainer()
        trainer.trained += ledger.recorded

    def _may_refill(self, trainer: Trainer, ledger: Ledger) -> bool:
        return not self._is_worn(trainer, ledger.recorded)

    def _look_ahead(self, trainer: Trainer, families: Sequence[str]) -> bool:
        """Reserve and sample while the trainer works, and let it compile what comes; whether anything was done."""
        if self._should_drain():
            return False
        busy = self._feeder.feed(families)
        self._sweeper.sweep()
        for trial in self._feeder.upcoming() if trainer.fault is None else ():
            data = self._datasets.known(trial.study.definition.dataset)
            if data is not None and trial.signature not in trainer.prepared and not trial.is_retry:
                trainer.prepared.add(trial.signature)
                trainer.send(preparation(trial, data, self._memory_mb))
        return busy

    def _new_trainer(self) -> Trainer:
        settings = self._settings
        return Trainer(self._device, self._families, settings.data_dir / PROGRAM_TIMINGS, settings.hang_timeout_s)

    def _tend_trainer(self) -> Trainer:
        """The trainer: a new one where the old one died idle, has trained or grown enough, or the framework failed."""
        trainer = self._trainer
        if trainer is not None and trainer.died():
            self._note_death(trainer)
            time.sleep(RESTART_DELAY_S)
            trainer = None
        elif trainer is not None and self._is_worn(trainer):
            memory_mb = round(trainer.memory_mb())
            recycled = log.bind(worker=self._worker_id, trained=trainer.trained, memory_mb=memory_mb)
            if trainer.fault is None:
                recycled.info("trainer_recycled")
            else:
                recycled.warning("trainer_recycled", fault=trainer.fault)
            trainer.stop()
            trainer = None
        self._trainer = trainer or self._new_trainer()
        return self._trainer

    def _note_death(self, trainer: Trainer) -> None:
        """Log how an idle trainer died.

        Raises:
            TrainerBroken: several in a row died before they were ready.
        """
        message = trainer.death()
        log.warning("trainer_lost", worker=self._worker_id, error=message)
        self._broken_starts = 0 if trainer.is_warm(self._families) else self._broken_starts + 1
        if self._broken_starts >= BROKEN_STARTS:
            wanted = ", ".join(self._families)
            raise TrainerBroken(
                f"Expected a trainer that gets ready for {wanted}. Received {BROKEN_STARTS} in a row that did not: "
                f"{message} The log above says why."
            )

    def _is_worn(self, trainer: Trainer, training: int = 0) -> bool:
        """Whether a trainer is to be replaced; `training` trials of its present stack are not counted yet.

        It has trained or grown enough, or an error of the framework's own has left in it what nobody knows.
        """
        if trainer.fault is not None or trainer.trained + training >= self._settings.trainer_max_trials:
            return True
        return trainer.memory_mb() > self._settings.trainer_max_memory_mb

    def _should_drain(self) -> bool:
        if self._keeper.drain_requested.is_set():
            self._drain()
        return self._draining

    def _drain(self) -> None:
        if not self._draining:
            self._draining = True
            self._drain_at = time.monotonic() + self._settings.drain_grace_s

    def _grace_end(self) -> float | None:
        return self._drain_at if self._should_drain() else None

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """First signal: drain. Second: give everything back now."""
        if self._draining:
            self._drain_at = 0.0
        self._signalled = True
        self._drain()

    def _leave(self) -> None:
        """Give back what was never started, and go; without the database leases expire by themselves."""
        try:
            self._feeder.give_back()
            is_reached = True
        except DBAPIError as error:
            log.warning("leases_left", worker=self._worker_id, error=str(error.orig))
            is_reached = False
        self._keeper.close()
        if self._trainer is not None:
            self._trainer.stop()
        self._artifacts.close()
        if is_reached:
            with contextlib.suppress(DBAPIError):
                self._database.run(lambda session: workers.set_worker_state(session, self._worker_id, "STOPPED"))
        self._database.dispose()
        log.info("worker_stopped", worker=self._worker_id)


def preparation(trial: PooledTrial, data: Local, memory_mb: float | None) -> Prepare:
    """What tells a trainer which program this trial will need, on a device of so much memory."""
    study = trial.study
    return Prepare(
        family=study.definition.model.family,
        model=study.definition.model,
        dataset=study.definition.dataset,
        data=data.path,
        training=study.definition.training,
        choices=study.runtime_choices,
        slots=slots_of(trial),
        memory_mb=memory_mb,
        expected=study.expected(trial.proposal.reservation.number),
        hyperparameters=trial.proposal.hyperparameters,
    )


def offered_families(names: str, registry: Families) -> list[str]:
    """The families in a comma-separated list; all that are trained here where it is empty.

    Raises:
        ValueError: a name that is no family.
    """
    known = [family.name for family in registry if family.trained_here]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise ValueError(f"Expected families among {', '.join(known)}. Received: {name!r}")
    return wanted or known


def parse_labels(text: str) -> Mapping[str, str]:
    """The labels in `key=value,key=value`.

    Raises:
        ValueError: a part without `=`.
    """
    labels = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, separator, value = part.partition("=")
        if not separator:
            raise ValueError(f"Expected labels as key=value. Received: {part!r}")
        labels[key] = value
    return labels

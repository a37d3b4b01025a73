"""What the store promises about one study, in plain Python: no SQL, no counters, every number counted anew.

`ModelStudy` has a method for each function of the store that writes, with the same answers; `told` is the event log
that must come of it. Trials are named by number; a lease is a number and a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.trial import FailureReason, Outcome, Proposal, Reservation

LIVE = ("WAITING", "RUNNING")
OVER = ("COMPLETED", "STOPPED", "CANCELLED", "FAILED")
BLAMELESS = (FailureReason.LOST, FailureReason.CANCELLED)


@dataclass
class ModelTrial:
    """A trial and its lease."""

    number: int
    ordinal: int | None = None
    requested: dict[str, Any] | None = None
    state: str = "WAITING"
    reason: str | None = None
    queue: int = 1
    attempt: int = 0
    charged: int = 0
    token: str | None = None
    expired: bool = False
    finish_token: str | None = None
    finish_seq: int | None = None
    hyperparameters: dict[str, Any] | None = None
    sampled: dict[str, Any] | None = None
    identity: str | None = None
    value: float | None = None
    feasible: bool | None = None
    epochs: int = 0
    reused_from: int | None = None
    metrics: list[tuple[int, int]] = field(default_factory=list)
    """Attempt and epoch of each report."""


@dataclass
class Limits:
    """What a study's budget says; None where it says nothing."""

    trials: int | None
    seconds: float | None = None
    device_seconds: float | None = None
    no_improvement: int | None = None


@dataclass
class ModelStudy:
    """One study: its rules, its trials by number, and what was told."""

    limits: Limits
    max_attempts: int = 3
    max_parallel: int | None = None
    sample_limit: int | None = None
    generation: int | None = None
    maximize: bool = False
    target: float | None = None
    on_duplicate: str = "train"

    state: str = "RUNNING"
    halted: bool = False
    started: bool = False
    elapsed: float = 0.0
    device_seconds: float = 0.0
    since_improvement: int = 0
    best: ModelTrial | None = None
    failures: int = 0
    """Own failures in a row, up to the last trial that ended."""
    finished: int = 0
    revision: int = 1
    trials: list[ModelTrial] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tell("study.created", state="RUNNING")

    def tell(self, kind: str, trial: ModelTrial | None = None, **fields: Any) -> None:
        about = {} if trial is None else {"trial": trial.number}
        self.told.append({"type": kind, **about, **fields})

    def count(self, *states: str) -> int:
        return sum(t.state in states for t in self.trials)

    @property
    def leased(self) -> int:
        return sum(t.token is not None for t in self.trials)

    @property
    def sampled_count(self) -> int:
        return sum(t.ordinal is not None for t in self.trials)

    def holds(self, number: int, token: str, *states: str) -> bool:
        """The fence: this token is the trial's, which is live."""
        trial = self.trials[number]
        return trial.token == token and trial.state in (states or LIVE)

    def held(self, leases: Iterable[tuple[int, str]], *states: str) -> list[ModelTrial]:
        return [self.trials[n] for n in sorted({n for n, token in leases if self.holds(n, token, *states)})]

    # -- what follows by itself ---------------------------------------------------------------------------------------

    def settle(self) -> None:
        if self.state in OVER:
            return
        nothing_good = self.count("COMPLETE", "PRUNED") == 0
        if (self.failures >= 10 and nothing_good) or self.failures >= 50:
            self.cancel_all(*LIVE)
            self.end("FAILED")
            return
        if not (self.generation and self.leased):
            self.halted = self.halted or self._limit_is_met()
        if self.halted or self.state == "STOPPING":
            self.cancel_all("WAITING")
            if not self.count("RUNNING"):
                self.end("COMPLETED" if self.halted else "STOPPED")
        elif not self.count(*LIVE) and self._is_exhausted():
            self.end("COMPLETED")

    def _limit_is_met(self) -> bool:
        limits, best = self.limits, None if self.best is None else self.best.value
        reached = (
            self.target is not None
            and best is not None
            and (best >= self.target if self.maximize else best <= self.target)
        )
        return (
            reached
            or (limits.seconds is not None and self.elapsed >= limits.seconds)
            or (limits.device_seconds is not None and self.device_seconds >= limits.device_seconds)
            or (limits.no_improvement is not None and self.since_improvement >= limits.no_improvement)
        )

    def _is_exhausted(self) -> bool:
        numbers, draws = self.limits.trials, self.sample_limit
        return (numbers is not None and len(self.trials) >= numbers) or (
            draws is not None and self.sampled_count >= draws
        )

    def end(self, state: str) -> None:
        own = [t for t in self.trials if t.state == "FAIL" and t.reason not in BLAMELESS]
        if state == "COMPLETED" and own and not self.count("COMPLETE", "PRUNED"):
            state = "FAILED"
        self.state = state
        best = None if self.best is None else {"number": self.best.number, "values": {"value": self.best.value}}
        self.tell("study.finished", state=state, best=best)

    def cancel_all(self, *states: str) -> None:
        self.end_failed([t for t in self.trials if t.state in states], FailureReason.CANCELLED)

    def end_failed(self, trials: Sequence[ModelTrial], reason: FailureReason) -> None:
        for trial in trials:
            self._count_end(trial, "FAIL", reason)
            self.tell("trial.finished", trial, state="FAIL", reason=reason, values=None)

    def _count_end(self, trial: ModelTrial, state: str, reason: FailureReason | None) -> None:
        self.finished += 1
        trial.state, trial.reason, trial.finish_seq = state, reason, self.finished
        trial.finish_token, trial.token, trial.expired = trial.token, None, False
        if state != "FAIL":
            self.failures = 0
        elif reason not in BLAMELESS:
            self.failures += 1

    # -- leases -------------------------------------------------------------------------------------------------------

    def reserve(self, count: int, *, settled: bool = False) -> list[ModelTrial]:
        """The trials that are reserved, in order; their tokens are for the caller to fill in."""
        if not settled and self.state == "RUNNING":
            self.settle()
        if self.state != "RUNNING" or self.halted:
            return []
        waiting = [t for t in self.trials if t.state == "WAITING" and t.token is None]
        room = count if self.max_parallel is None else min(count, self.max_parallel - self.leased)
        if self.generation and not waiting:
            room = (0 if self.leased else self.generation) if room > 0 else 0
        taken = sorted(waiting, key=lambda t: (t.queue, t.number))[: max(room, 0)]
        fresh = 0 if self.generation and waiting else room - len(taken)
        if self.limits.trials is not None:
            fresh = min(fresh, self.limits.trials - len(self.trials))
        if self.sample_limit is not None:
            fresh = min(fresh, self.sample_limit - self.sampled_count)
        for _ in range(fresh):
            taken.append(ModelTrial(len(self.trials), ordinal=self.sampled_count))
            self.trials.append(taken[-1])
        for trial in taken:
            trial.token = "to be filled in"
        return taken

    def start(self, proposals: Sequence[Proposal]) -> set[int]:
        held = {p.reservation.number: p for p in proposals if self.holds(p.reservation.number, p.reservation.token)}
        again = {n for n in held if self.trials[n].state == "RUNNING"}
        starting = [held[n] for n in sorted(set(held) - again)]
        if self.state != "RUNNING" or self.halted:
            return again
        trained, reused = [], []
        for proposal in starting:
            alike = [t for t in self.trials if t.identity == proposal.identity is not None and t.state != "WAITING"]
            complete = next((t for t in alike if t.state == "COMPLETE"), None)
            if proposal.on_duplicate == "reuse" and complete is not None:
                reused.append((proposal, complete))
            elif proposal.on_duplicate != "redraw" or all(t.reason in BLAMELESS for t in alike):
                trained.append(proposal)
        for proposal in trained:
            self._begin(proposal)
            if not self.started:
                self.started = True
                self.told.insert(-1, {"type": "study.started", "state": "RUNNING"})
        for proposal, source in reused:
            trial = self._begin(proposal)
            trial.value, trial.feasible, trial.reused_from = source.value, source.feasible, source.number
            self._count_end(trial, "COMPLETE", None)
            self.since_improvement += 1
            told = {"values": {"value": source.value}, "feasible": source.feasible, "reused_from": source.number}
            self.tell("trial.finished", trial, state="COMPLETE", reason=None, **told)
        if reused:
            self.settle()
        return again | {p.reservation.number for p in trained}

    def _begin(self, proposal: Proposal) -> ModelTrial:
        trial = self.trials[proposal.reservation.number]
        trial.state, trial.epochs, trial.expired = "RUNNING", 0, False
        trial.attempt += 1
        trial.hyperparameters, trial.sampled = proposal.hyperparameters, proposal.sampled
        trial.identity = proposal.identity
        self.tell("trial.started", trial, attempt=trial.attempt, hyperparameters=trial.hyperparameters)
        return trial

    def end_attempts(self, trials: Sequence[ModelTrial], reason: str, charged: FailureReason | None = None) -> None:
        """Leases that are released (not charged), charged, or reaped."""
        final = [t for t in trials if charged and t.state == "RUNNING" and t.charged + 1 >= self.max_attempts]
        for trial in trials:
            if trial in final:
                continue
            if trial.state == "RUNNING":
                trial.charged += charged is not None
                self.tell("trial.retried", trial, attempt=trial.attempt + 1, reason=reason)
            trial.state, trial.queue, trial.token, trial.expired = "WAITING", 0, None, False
        if charged:
            self.end_failed(final, charged)
        self.settle()

    # -- results ------------------------------------------------------------------------------------------------------

    def record(self, reports: Iterable[tuple[Reservation, int]]) -> set[int]:
        """Reports are a lease and an epoch."""
        standing = [(r, epoch) for r, epoch in reports if self.holds(r.number, r.token, "RUNNING")]
        for r, epoch in standing:
            trial = self.trials[r.number]
            trial.epochs, trial.expired = epoch + 1, False
            trial.metrics.append((r.attempt, epoch))
            self.tell("trial.metrics", trial, attempt=r.attempt, epoch=epoch)
        return {r.number for r, _ in standing}

    def finish(
        self, outcomes: Sequence[tuple[Reservation, Outcome]], reports: Sequence[tuple[Reservation, int]]
    ) -> set[int]:
        ending = [(r, o) for r, o in outcomes if self.holds(r.number, r.token, "RUNNING")]
        rows = [(self.trials[r.number], o) for r, o in outcomes]
        repeated = {t.number for t, o in rows if t.finish_token == o.token and t.state == o.state}
        self.record(reports)
        for r, outcome in ending:
            self._end_by(self.trials[r.number], outcome)
        self.settle()
        return repeated | {r.number for r, _ in ending}

    def _end_by(self, trial: ModelTrial, outcome: Outcome) -> None:
        self._count_end(trial, outcome.state, outcome.reason)
        self.device_seconds += outcome.device_seconds
        trial.epochs, trial.feasible = outcome.epochs, outcome.feasible
        trial.value = None if outcome.values is None else outcome.values[0]
        values = None if outcome.values is None else {"value": trial.value}
        told = {"values": values, "feasible": trial.feasible}
        self.tell("trial.finished", trial, state=outcome.state, reason=outcome.reason, **told)
        self.since_improvement += 1
        if outcome.state == "COMPLETE" and trial.feasible and trial.value is not None and self._beats(trial.value):
            self.best, self.since_improvement = trial, 0
            self.tell("trial.best", trial, values=values, hyperparameters=trial.hyperparameters)

    def _beats(self, value: float) -> bool:
        if self.best is None or self.best.value is None:
            return True
        return value > self.best.value if self.maximize else value < self.best.value

    # -- the study's life: each answers whether it is allowed ----------------------------------------------------------

    def act(self, action: str) -> bool:
        """`pause`, `resume`, `stop` or `cancel`."""
        allowed, done, change = self._actions()[action]
        if self.state in done:
            return True
        if not allowed:
            return False
        change()
        return True

    def _actions(self) -> dict[str, tuple[bool, tuple[str, ...], Callable[[], None]]]:
        """For each action: whether it is allowed, in which states it holds already, and what it does."""
        live = self.state not in OVER
        return {
            "pause": (self.state == "RUNNING" and not self.halted, ("PAUSED",), self._pause),
            "resume": (self.state == "PAUSED", ("RUNNING",), self._resume),
            "stop": (live, ("STOPPING", "STOPPED"), self._stop),
            "cancel": (live, ("CANCELLED",), self._cancel),
        }

    def _pause(self) -> None:
        self.state = "PAUSED"
        for trial in self.trials:
            if trial.state == "WAITING" and trial.token is not None:
                trial.token, trial.queue, trial.expired = None, 0, False
        self.tell("study.paused", state="PAUSED")

    def _resume(self) -> None:
        self.state = "RUNNING"
        self.tell("study.resumed", state="RUNNING")
        self.settle()

    def _stop(self) -> None:
        self.state = "STOPPING"
        self.tell("study.stopping", state="STOPPING")
        self.settle()

    def _cancel(self) -> None:
        self.cancel_all(*LIVE)
        self.end("CANCELLED")

    def rebudget(self, limits: Limits) -> bool:
        changed = limits != self.limits
        if changed and self.state in OVER and self.state != "COMPLETED":
            return False
        self.limits = limits
        self.revision += 1
        reopened = changed and self.state == "COMPLETED"
        if changed:
            self.halted = False
        if reopened:
            self.state = "RUNNING"
        begin, before = len(self.told), self.state
        self.settle()
        # Whether a study that was over runs again is known once it was settled.
        events = [{"type": "study.updated", "state": self.state if reopened else before}]
        if reopened and self.state == "RUNNING":
            events.append({"type": "study.resumed", "state": "RUNNING"})
        self.told[begin:begin] = events
        return True

    def enqueue(self, requested: dict[str, Any]) -> bool:
        full = self.limits.trials is not None and len(self.trials) >= self.limits.trials
        if self.state not in ("RUNNING", "PAUSED") or self.halted or full:
            return False
        self.trials.append(ModelTrial(len(self.trials), requested=requested))
        self.tell("trial.enqueued", self.trials[-1], hyperparameters=requested)
        return True

    def cancel_trial(self, number: int) -> bool:
        trial = self.trials[number]
        if trial.state not in LIVE:
            return trial.reason == FailureReason.CANCELLED
        self.end_failed([trial], FailureReason.CANCELLED)
        self.settle()
        return True

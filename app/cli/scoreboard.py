"""What a study's events add up to, kept by reading each once."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Any

from app.client.models import (
    Event,
    Reset,
    Study,
    StudyEvent,
    TrialBest,
    TrialFinished,
    TrialMetrics,
    TrialRetried,
    TrialStarted,
)

RECENT = 30
"""Trials that the speed, and with it the time left, is taken from."""


class Scoreboard:
    """A study's standing: its state, its counts, the best trial so far, the time that is left."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.state = study.state
        self.state_reason = study.state_reason
        self._begin()

    def _begin(self) -> None:
        self.ended: dict[str, int] = {"COMPLETE": 0, "PRUNED": 0, "FAIL": 0}
        self.running: dict[int, str] = {}
        self.best: TrialBest | None = None
        self.epochs = 0
        self.over = False
        self._times: deque[datetime] = deque(maxlen=RECENT)

    @property
    def done(self) -> int:
        """Trials that are over."""
        return sum(self.ended.values())

    @property
    def total(self) -> int | None:
        """Trials of the budget, or None where something else limits the study."""
        trials = (self.study.definition.get("budget") or {}).get("trials")
        return trials if isinstance(trials, int) else None

    def add(self, event: Event) -> None:
        """Count one event in; events come in order."""
        match event:
            case Reset():
                self._begin()
            case StudyEvent():
                self.state, self.state_reason = event.state, event.state_reason
                self.over = event.type == "study.finished"
                self._take_sums(event)
            case TrialStarted() if event.type == "trial.started":
                self.running[event.trial] = "starting"
            case TrialMetrics():
                self.epochs += 1
                self.running[event.trial] = f"epoch {event.epoch + 1}"
            case TrialBest():
                self.best = event
            case TrialRetried():
                self.running.pop(event.trial, None)
            case TrialFinished():
                self.running.pop(event.trial, None)
                self.ended[event.state] = self.ended.get(event.state, 0) + 1
                if event.at is not None:
                    self._times.append(event.at)

    def _take_sums(self, event: StudyEvent) -> None:
        """Take over what `study.finished` tells: the events that add up to it may be gone."""
        progress, best = event.progress, event.best
        if progress is not None:
            self.ended = {"COMPLETE": progress.complete, "PRUNED": progress.pruned, "FAIL": progress.fail}
        if best is not None and self.best is None:
            self.best = TrialBest(seq=event.seq, type="trial.best", trial=best.number, values=dict(best.values))

    def seconds_left(self) -> float | None:
        """Seconds to the end of the budget at the speed of the last trials; None where that can't be said."""
        if self.total is None or len(self._times) < 2 or self.over:
            return None
        span_s = (self._times[-1] - self._times[0]).total_seconds()
        return max(0, self.total - self.done) * span_s / (len(self._times) - 1)

    def best_words(self) -> str:
        """The best trial so far, in words."""
        if self.best is None:
            return "none yet"
        return f"trial {self.best.trial}: {values_words(self.best.values)}"

    def line(self) -> str:
        """The standing in one line."""
        of = f" of {self.total}" if self.total is not None else ""
        parts = [
            f"{self.state.lower()}: {self.done}{of} trials done",
            f"{self.ended['PRUNED']} pruned",
            f"{self.ended['FAIL']} failed",
            f"{len(self.running)} running",
            f"best {self.best_words()}",
        ]
        left_s = self.seconds_left()
        if left_s is not None and left_s >= 1:
            parts.append(f"about {duration_words(left_s)} left")
        return ", ".join(parts)


def values_words(values: dict[str, Any] | None) -> str:
    """`name value` of each, numbers to four digits."""
    return ", ".join(f"{name} {number_words(value)}" for name, value in (values or {}).items()) or "no value"


def number_words(value: object) -> str:
    """A number to four significant digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration_words(seconds: float) -> str:
    """A duration the way a person says it: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

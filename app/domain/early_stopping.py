"""When a trial stops early: its metric has not improved for a while."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.metrics import GAINS
from app.domain.study import EarlyStopping, Objective


@dataclass(slots=True)
class Patience:
    """Watches the metric of an early-stopping rule, epoch by epoch. A value that is no number is no improvement."""

    rule: EarlyStopping
    maximize: bool
    _best: float = math.inf
    _stale_epochs: int = 0

    def watch(self, value: float) -> None:
        """Take in an epoch's value."""
        cost = -value if self.maximize else value
        if cost < self._best - self.rule.min_delta:
            self._best, self._stale_epochs = cost, 0
        else:
            self._stale_epochs += 1

    @property
    def is_over(self) -> bool:
        """Whether the trial stops now."""
        return self._stale_epochs > 0 and self._stale_epochs >= self.rule.patience

    def state(self) -> list[float]:
        """What a snapshot keeps of it, as JSON values."""
        return [self._best, self._stale_epochs]

    def restore(self, state: Sequence[float]) -> None:
        """Be as far as the one of which `state` was kept."""
        self._best, self._stale_epochs = state[0], int(state[1])


def patience(rule: EarlyStopping, objectives: Sequence[Objective], gains: Sequence[str] = ()) -> Patience:
    """What watches a rule's metric: in an objective's direction where it is one, else in the usual one.

    Of the metrics in `gains`, a family's own, more is better, too.
    """
    directions = {o.metric: o.maximizes for o in objectives}
    return Patience(rule, directions.get(rule.metric, rule.metric in (*GAINS, *gains)))

"""Folds and repeats: a trial that is trained several times, on other parts of the data or with other seeds.

Each time is an *instance*: instance `i` holds out fold `i mod folds` and is repeat `i div folds`. The instances of all
trials of a study are the same ones, so that trials can be compared instance by instance.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.study import TrainingSpec, trial_seed


@dataclass(frozen=True, slots=True)
class Instance:
    """One training of a trial. `folds` is 1 where the data is split once, by `validation_fraction`."""

    index: int
    fold: int
    repeat: int
    folds: int

    def seed(self, trial: int) -> int:
        """What drives weights, shuffling and dropout, by the trial's seed: each repeat has its own."""
        return trial if self.repeat == 0 else trial_seed(trial, self.repeat)


def instance_of(training: TrainingSpec, index: int) -> Instance:
    """The instance of a number from 0."""
    return Instance(index, index % training.folds, index // training.folds, training.folds)

"""Population-based training as a study declares it: how large the population is, and how its generations follow.

Every trial is a *segment*: it trains for an interval of epochs and leaves its whole state to the trials of the next
generation. Trial `number` is member `number % size` of generation `number // size`. A segment's epochs count from 0;
`first_epoch` of the trial says how many its ancestors trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.study import StudyDefinition

SAMPLER = "pbt"
HANDED_ON_KEY, PARENT_KEY, FIRST_EPOCH_KEY = "fettle:handed_on", "fettle:parent", "fettle:first_epoch"
"""System attributes of trials: whether its state was kept, the trial that it goes on from, the epochs behind it."""
POPULATION_SIZE = 8
INTERVAL_EPOCHS = 5
"""What a study that names no size or interval has."""


@dataclass(frozen=True, slots=True)
class Population:
    """`size` members that train `epochs` in all, `interval` epochs a generation; the last may be shorter."""

    size: int
    interval: int
    epochs: int

    @property
    def generations(self) -> int:
        """How many generations there are."""
        return -(-self.epochs // self.interval)

    @property
    def trials(self) -> int:
        """How many trials train the population to its end."""
        return self.size * self.generations

    def generation(self, number: int) -> int:
        """The generation of trial `number`, from 0."""
        return number // self.size

    def segment(self, first_epoch: int) -> int:
        """How many epochs a trial with `first_epoch` epochs behind it trains."""
        return max(1, min(self.interval, self.epochs - first_epoch))

    def is_last(self, number: int) -> bool:
        """Whether no trial goes on from trial `number`."""
        return self.generation(number) >= self.generations - 1


def population_of(definition: StudyDefinition) -> Population | None:
    """The population of a study that trains one."""
    if definition.sampler.name != SAMPLER:
        return None
    options = definition.sampler.options
    return Population(
        size=int(options.get("population_size", POPULATION_SIZE)),
        interval=int(options.get("interval_epochs", INTERVAL_EPOCHS)),
        epochs=definition.training.epochs,
    )

"""The family `function`: closed-form test functions, trained without TensorFlow or data.

Epoch `e` of `E` reports `value = f(x) + (E - 1 - e) / E`, so that a curve falls to `f(x)`, and sleeps `delay_seconds`.
The functions are the standard forms of Surjanovic and Bingham's Virtual Library of Simulation Experiments.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from app.domain.families import DIMENSIONS, FUNCTION, Scalar
from app.domain.trial import FailureReason
from worker.trainer.conversation import converse, refuse_all
from worker.trainer.protocol import KeepModel, KeptModel, Member, Prepare, TrainStack
from worker.trainer.snapshots import Arrays, Shelf
from worker.trainer.trainable import Channel, Refused, check_metrics

EPOCH_METRICS = ("value", "seconds")
RESULT_METRICS = ("train_seconds",)

HARTMANN_WEIGHTS = (1.0, 1.2, 3.0, 3.2)
HARTMANN_SCALES = (
    (10.0, 3.0, 17.0, 3.5, 1.7, 8.0),
    (0.05, 10.0, 17.0, 0.1, 8.0, 14.0),
    (3.0, 3.5, 1.7, 10.0, 17.0, 8.0),
    (17.0, 8.0, 0.05, 10.0, 0.1, 14.0),
)
HARTMANN_CENTRES = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886),
    (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650),
    (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)


def sphere(x: Sequence[float]) -> float:
    """`Σ xᵢ²`; 0 at the origin."""
    return math.fsum(v * v for v in x)


def rastrigin(x: Sequence[float]) -> float:
    """`10·n + Σ (xᵢ² - 10·cos 2πxᵢ)`; 0 at the origin."""
    return 10.0 * len(x) + math.fsum(v * v - 10.0 * math.cos(2.0 * math.pi * v) for v in x)


def rosenbrock(x: Sequence[float]) -> float:
    """`Σ 100·(xᵢ₊₁ - xᵢ²)² + (1 - xᵢ)²`; 0 at (1, …, 1). A single coordinate gives `(1 - x)²`."""
    if len(x) == 1:
        return (1.0 - x[0]) ** 2
    return math.fsum(100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2 for a, b in pairwise(x))


def branin(x: Sequence[float]) -> float:
    """Branin's function of two coordinates, usually on [-5, 10] × [0, 15]; 0.397887 at (π, 2.275)."""
    a, b = x
    curve = b - 5.1 / (4.0 * math.pi**2) * a * a + 5.0 / math.pi * a - 6.0
    return curve * curve + 10.0 * (1.0 - 1.0 / (8.0 * math.pi)) * math.cos(a) + 10.0


def hartmann6(x: Sequence[float]) -> float:
    """Hartmann's function of six coordinates on the unit cube; -3.32237 at its minimum."""
    rows = zip(HARTMANN_WEIGHTS, HARTMANN_SCALES, HARTMANN_CENTRES, strict=True)
    return -math.fsum(
        weight * math.exp(-math.fsum(s * (v - c) ** 2 for s, v, c in zip(scales, x, centres, strict=True)))
        for weight, scales, centres in rows
    )


FUNCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    f.__name__: f for f in (sphere, rastrigin, rosenbrock, branin, hartmann6)
}
"""The functions by the names of `families.TEST_FUNCTIONS`."""


def coordinates(hyperparameters: Mapping[str, Scalar]) -> list[float]:
    """The values of `x0`, `x1`, … in order.

    Raises:
        Refused: none, a gap in the numbering, or not as many as the function takes.
    """
    function = str(hyperparameters["function"])
    given = sorted(int(name[1:]) for name in hyperparameters if name not in FUNCTION.by_name)
    wanted = DIMENSIONS.get(function, max(len(given), 1))
    if given != list(range(wanted)):
        raise Refused(
            f"Expected {wanted} coordinates of {function}: {_span(wanted)}. "
            f"Received: {', '.join(f'x{i}' for i in given) or 'none'}"
        )
    return [float(hyperparameters[f"x{i}"]) for i in given]


def run_function(request: TrainStack, channel: Channel, shelf: Shelf | None = None) -> None:
    """Train a stack of the family `function`: all of its conversation after `TrainStack`.

    `shelf` holds snapshots from stack to stack. The last epoch is selected, whatever `select_epoch` says, so that a
    trial's value is `f(x)`.
    """
    try:
        check_metrics(request, EPOCH_METRICS, RESULT_METRICS)
    except Refused as error:
        refuse_all(request, channel, str(error))
        return
    converse(request, channel, _Functions(request.training.epochs), select_last=True, shelf=shelf)


class _Functions:
    """Members that are points of a function."""

    epoch_metrics = EPOCH_METRICS
    watched = ("value",)
    fault = None
    identity = f"{FUNCTION.name} {FUNCTION.version}"

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self.width = FUNCTION.stack_members
        self._done: dict[int, int] = {}
        self._values: dict[int, float] = {}
        self._delays: dict[int, float] = {}

    def start(self, member: Member) -> None:
        values = {**FUNCTION.defaults(), **member.hyperparameters}
        for name, value in values.items():
            declared = FUNCTION.declared(name)
            problem = "Expected function, delay_seconds, x0, x1, …" if declared is None else declared.problem(value)
            if problem is not None:
                raise Refused(f"{name}: {problem}")
        try:
            self._values[member.member] = FUNCTIONS[str(values["function"])](coordinates(values))
        except OverflowError:
            self._values[member.member] = math.inf
        self._delays[member.member] = float(values["delay_seconds"])
        self._done[member.member] = 0

    def resume(self, member: Member, arrays: Arrays, *, inherited: bool) -> None:  # noqa: ARG002
        self.start(member)
        self._done[member.member] = int(arrays["epochs"])

    def snapshot(self, members: Sequence[Member]) -> dict[int, Arrays]:
        import numpy as np  # for snapshots alone: a trainer of this family starts without it

        return {m.member: {"epochs": np.array(self._done[m.member])} for m in members}

    def train_epoch(self, members: Sequence[Member]) -> dict[int, dict[str, float]]:
        # The members of a stack train together: their delays pass side by side.
        delay = max(self._delays[m.member] for m in members)
        if delay > 0:
            time.sleep(delay)
        reports = {}
        for m in members:
            left = self._epochs - 1 - self._done[m.member]
            reports[m.member] = {"value": self._values[m.member] + left / self._epochs}
            self._done[m.member] += 1
        return reports

    def select(self, member: Member) -> None:
        """Nothing to remember: there is no model."""

    def result_metrics(self, member: Member) -> dict[str, float]:  # noqa: ARG002
        return {}

    def keep(
        self,
        member: Member,
        model: KeepModel,
        selected_epoch: int,  # noqa: ARG002
        history: Sequence[Mapping[str, float]],  # noqa: ARG002
    ) -> Callable[[], KeptModel]:
        none = KeptModel(member=member.member, path=model.path, error="The family function has no model to write.")
        return lambda: none

    def end(self, member: Member) -> None:
        for kept in (self._values, self._delays, self._done):
            kept.pop(member.member, None)

    def prepare(self, wanted: Prepare) -> None:
        """Nothing to compile."""

    def failure_reason(self, error: Exception) -> FailureReason:
        return FailureReason.OUT_OF_MEMORY if isinstance(error, MemoryError) else FailureReason.EXCEPTION


def _span(count: int) -> str:
    return "x0" if count == 1 else f"x0 … x{count - 1}"

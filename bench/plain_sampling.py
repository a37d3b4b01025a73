"""Plain Optuna over Fettle's compiled training: what its sampler finds, without hours of `model.fit`.

    python -m bench.plain_sampling digits-mlp --trials 60 --seed 0 --in-flight 15

It asks for K trials, trains them together, and tells their results. The arithmetic is that of `model.fit` on the same
data: the parity tests hold weights, losses and metrics of every kind of training to it. This peer is for quality alone.
"""

from __future__ import annotations

from worker.training.device import configure
from worker.training.network_registry import BUILT_IN_NETWORKS

configure()

from app.domain.families import FAMILIES  # noqa: E402 - TensorFlow is configured before it is used
from app.domain.study import DatasetSpec, Objective, TrainingSpec, trial_seed  # noqa: E402
from bench.peers.plain_keras import create_study  # noqa: E402
from bench.peers.telling import Telling, arguments  # noqa: E402
from bench.works import DECAY_EPOCHS, SPLIT_SEED, VALIDATION_FRACTION, WORKS, Work, suggested  # noqa: E402
from worker.trainer.protocol import Member, TrainStack  # noqa: E402
from worker.training.program import Program, Variant  # noqa: E402
from worker.training.signature import filled, structural_signature  # noqa: E402
from worker.training.slots import MemberMetrics, Slots  # noqa: E402

MEMBERS = 8


class Trainer:
    """Trains trials of a work, those of equal batch size together."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._programs: dict[int, Program] = {}

    def accuracies(self, drawn: list[dict[str, object]], seeds: list[int]) -> list[float]:
        """The best validation accuracy over the epochs of each."""
        found = [0.0] * len(drawn)
        for batch_size in {int(str(values["batch_size"])) for values in drawn}:
            mine = [i for i, values in enumerate(drawn) if values["batch_size"] == batch_size]
            for i, accuracy in zip(mine, self._train([drawn[i] for i in mine], [seeds[i] for i in mine]), strict=True):
                found[i] = accuracy
        return found

    def _train(self, drawn: list[dict[str, object]], seeds: list[int]) -> list[float]:
        work, family = self._work, FAMILIES[self._work.family]
        fixed = {**work.network, "optimizer": "adam", "decay_epochs": DECAY_EPOCHS}
        request = TrainStack(
            stack="stack",
            family=work.family,
            dataset=DatasetSpec(name=work.dataset, validation_fraction=VALIDATION_FRACTION, split_seed=SPLIT_SEED),
            training=TrainingSpec(epochs=work.epochs),
            objectives=[Objective(metric="val_accuracy")],
            choices={"activation": ["relu", "tanh", "sigmoid"]},
            members=[
                Member(member=i, number=i, hyperparameters={**fixed, **values}, seed=seed)  # type: ignore[dict-item]
                for i, (values, seed) in enumerate(zip(drawn, seeds, strict=True))
            ],
        )
        signature = structural_signature(request, BUILT_IN_NETWORKS)
        batch_size = int(signature.hyperparameters["batch_size"])
        program = self._programs.setdefault(batch_size, Program(signature, Variant(MEMBERS, xla=True)))
        slots = Slots(program)
        for member in request.members:
            values = filled(family, member.hyperparameters)
            slots.reset(member.member, values, seed=member.seed, epochs=work.epochs)
        best = [0.0] * len(drawn)
        for _ in range(work.epochs):
            for slot, metrics in slots.run_epoch(range(len(drawn))).items():
                if not isinstance(metrics, MemberMetrics):
                    raise metrics
                best[slot] = max(best[slot], metrics.val_score)
        return best


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--in-flight", type=int, required=True)
    options = parser.parse_args()
    work = WORKS[options.work]
    study = create_study(work, options.seed, hyperband=False)
    trainer, telling = Trainer(work), Telling(work)
    telling.start()
    for first in range(0, options.trials, options.in_flight):
        asked = [study.ask() for _ in range(min(options.in_flight, options.trials - first))]
        drawn = [suggested(trial.suggest_float, trial.suggest_categorical) for trial in asked]
        seeds = [trial_seed(10_000 + options.seed, trial.number) for trial in asked]
        for trial, accuracy in zip(asked, trainer.accuracies(drawn, seeds), strict=True):
            telling.trial(accuracy, work.epochs)
            study.tell(trial, accuracy)
    telling.finish()


if __name__ == "__main__":
    main()

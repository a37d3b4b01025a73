"""Plain Optuna and `model.fit`, as their documentation shows them.

    python -m bench.peers.plain_keras digits-mlp --trials 60 --seed 0

Same data, split, space, sampler and epochs as the study that Fettle runs. `--in-flight K` asks for K trials before it
trains them and tells their results, as a service with K trials at once does. `--hyperband` prunes with Optuna's own
pruner, `--until-target` stops at the first trial that reaches the work's target.
`--data` is the file of texts that works on texts need.
"""

from __future__ import annotations

from pathlib import Path

import keras
import optuna

from bench.peers.network import load, trained, warm_up
from bench.peers.telling import Telling, arguments
from bench.works import WORKS, Work, suggested


class Pruning(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports every epoch to Optuna and leaves the training where its pruner says so."""

    def __init__(self, trial: optuna.Trial) -> None:
        super().__init__()
        self.trial = trial

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.trial.report((logs or {})["val_accuracy"], epoch)
        if self.trial.should_prune():
            self.model.stop_training = True


def create_study(work: Work, seed: int, hyperband: bool) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    pruner = optuna.pruners.HyperbandPruner(1, work.epochs, 3) if hyperband else optuna.pruners.NopPruner()
    return optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--hyperband", action="store_true")
    parser.add_argument("--until-target", action="store_true")
    parser.add_argument("--data", type=Path, help="a file of recordings or texts, where the work needs one")
    options = parser.parse_args()
    work = WORKS[options.work]
    split = load(work, options.data)
    study = create_study(work, options.seed, options.hyperband)
    warm_up(split)
    telling = Telling(work)

    def run(trial: optuna.Trial, values: dict[str, object]) -> float:
        callbacks = (Pruning(trial),) if options.hyperband else ()
        accuracy, epochs = trained(work, split, values, options.seed * 10_000 + trial.number, callbacks)
        telling.trial(accuracy, epochs)
        if epochs < work.epochs:
            raise optuna.TrialPruned
        return accuracy

    def objective(trial: optuna.Trial) -> float:
        accuracy = run(trial, suggested(trial.suggest_float, trial.suggest_categorical))
        if options.until_target and telling.target_s is not None:
            study.stop()
        return accuracy

    telling.start()
    if options.in_flight == 1:
        study.optimize(objective, n_trials=options.trials)
    else:
        for first in range(0, options.trials, options.in_flight):
            asked = [study.ask() for _ in range(min(options.in_flight, options.trials - first))]
            drawn = [suggested(trial.suggest_float, trial.suggest_categorical) for trial in asked]
            for trial, values in zip(asked, drawn, strict=True):
                study.tell(trial, run(trial, values))
    telling.finish()


if __name__ == "__main__":
    main()

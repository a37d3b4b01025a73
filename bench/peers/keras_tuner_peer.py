"""KerasTuner as its documentation shows it: a HyperModel that also tunes the batch size in `fit`, and `RandomSearch`.

    python -m bench.peers.keras_tuner_peer digits-mlp --trials 24 --seed 0

RandomSearch is its quickest tuner: BayesianOptimization fits a Gaussian process before each trial. Checkpoints, one for
each better epoch, and a file a trial are its own way of working, written to a temporary directory.
"""

from __future__ import annotations

import tempfile
from typing import Any

import keras
import keras_tuner

from bench.peers.network import Split, compiled, load, warm_up
from bench.peers.telling import Telling, arguments
from bench.works import SPACE, WORKS, Work


class Network(keras_tuner.HyperModel):  # type: ignore[misc]
    """The work's network over KerasTuner's hyperparameters."""

    def __init__(self, work: Work, split: Split) -> None:
        super().__init__()
        self.work, self.split = work, split

    def build(self, hp: Any) -> Any:
        return compiled(self.work, self.split, draw(hp))

    def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        return model.fit(*args, batch_size=hp.get("batch_size"), **kwargs)


def draw(hp: Any) -> dict[str, Any]:
    """One draw from the space."""
    values: dict[str, Any] = {}
    for name, spec in SPACE.items():
        for parent, allowed in spec.get("when", {}).items():
            with hp.conditional_scope(parent, allowed):
                if values[parent] in allowed:
                    values[name] = _one(hp, name, spec)
        if "when" not in spec:
            values[name] = _one(hp, name, spec)
    return values


def _one(hp: Any, name: str, spec: dict[str, Any]) -> Any:
    if spec["type"] == "categorical":
        return hp.Choice(name, spec["choices"])
    return hp.Float(name, spec["low"], spec["high"], sampling="log" if spec.get("log") else "linear")


class Told(keras_tuner.RandomSearch):  # type: ignore[misc]
    """RandomSearch that tells what each trial gave."""

    telling: Telling

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        histories = super().run_trial(trial, *args, **kwargs)
        accuracies = histories[0].history["val_accuracy"]
        self.telling.trial(float(max(accuracies)), len(accuracies))
        return histories


def main() -> None:
    options = arguments(__doc__).parse_args()
    work = WORKS[options.work]
    split = load(work)
    keras.utils.set_random_seed(options.seed)
    with tempfile.TemporaryDirectory(prefix="fettle-bench-") as folder:
        tuner = Told(
            Network(work, split),
            objective="val_accuracy",
            max_trials=options.trials,
            seed=options.seed,
            directory=folder,
            project_name="study",
            overwrite=True,
        )
        tuner.telling = Telling(work)
        warm_up(split)
        tuner.telling.start()
        tuner.search(split.x, split.y, epochs=work.epochs, validation_data=(split.x_val, split.y_val), verbose=0)
        tuner.telling.finish()


if __name__ == "__main__":
    main()

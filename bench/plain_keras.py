"""The peer: plain Optuna and `model.fit`, as their documentation shows it. Prints one JSON line.

    python -m bench.plain_keras TRIALS EPOCHS SEED UNITS      # UNITS: a number, or "search"

Same data, split, space, sampler and epochs as the study that Fettle runs; no pruner, no early stopping. The accuracy
of a trial is its maximum over the epochs, as Fettle's `select_epoch: best`.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import optuna
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def main(trials: int, epochs: int, seed: int, units: str) -> None:
    images, labels = load_digits(return_X_y=True)
    x, x_val, y, y_val = train_test_split(
        (images / 16).astype("float32"), labels, test_size=0.2, random_state=0, stratify=labels
    )

    def objective(trial: optuna.Trial) -> float:
        keras.utils.set_random_seed(seed * 10_000 + trial.number)
        width = trial.suggest_int("units", 32, 128, step=32) if units == "search" else int(units)
        activation = trial.suggest_categorical("activation", ["relu", "tanh", "sigmoid"])
        l1 = trial.suggest_float("l1", 1e-7, 1e-3, log=True)
        l2 = trial.suggest_float("l2", 1e-7, 1e-3, log=True)
        dropout = trial.suggest_float("dropout", 0.0, 0.5)
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        schedule = trial.suggest_categorical("lr_schedule", ["constant", "exponential", "step"])
        decay = trial.suggest_float("decay_rate", 0.1, 0.9) if schedule != "constant" else 1.0
        batch = trial.suggest_categorical("batch_size", [32, 64, 128])
        steps = -(-len(x) // batch)
        if schedule != "constant":
            rate = keras.optimizers.schedules.ExponentialDecay(rate, 5 * steps, decay, staircase=schedule == "step")
        penalty = keras.regularizers.L1L2(l1, l2)
        layers: list[keras.Layer] = [keras.Input((64,))]
        for _ in range(2):
            layers += [keras.layers.Dense(width, activation, kernel_regularizer=penalty), keras.layers.Dropout(dropout)]
        model = keras.Sequential([*layers, keras.layers.Dense(10, kernel_regularizer=penalty)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        history = model.fit(x, y, batch, epochs, verbose=0, validation_data=(x_val, y_val))
        keras.backend.clear_session()
        return float(max(history.history["val_accuracy"]))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    # One layer of TensorFlow's own warm-up is not the peer's fault: Fettle's trainer is warm as well.
    keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)]).predict(x[:1], verbose=0)
    started = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    seconds = time.perf_counter() - started
    complete = sum(t.state.name == "COMPLETE" for t in study.trials)
    print(json.dumps({"seconds": seconds, "complete": complete, "best": study.best_value}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])

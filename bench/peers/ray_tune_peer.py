"""Ray Tune as its documentation shows it: a trainable function, `OptunaSearch`, one CPU a trial, actors reused.

    python -m bench.peers.ray_tune_peer digits-mlp --trials 24 --seed 0

In its favour: Ray is up before the clock starts, which it does when the first trial's process has imported TensorFlow
and begins to train; `reuse_actors` keeps later trials from importing it again; a trial reports once, at its end;
nothing is logged to files that the documentation lets one switch off. `--fresh-actors` gives Tune's default, a process
a trial.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from bench.peers.network import load, trained
from bench.peers.telling import Telling, arguments
from bench.works import WORKS, suggested

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
"""No report to Ray's makers, and no files of results beside those that Tune itself needs."""
CORES = len(os.sched_getaffinity(0))
POLL_S = 0.02


class Told(tune.Callback):  # type: ignore[misc]
    """Tells what each trial gave."""

    def __init__(self, telling: Telling) -> None:
        self.telling = telling

    def on_trial_result(self, *_: Any, result: dict[str, Any], **__: Any) -> None:
        if "val_accuracy" in result:
            self.telling.trial(result["val_accuracy"], result["epochs"])


def space(trial: optuna.Trial) -> None:
    """The search space, defined by run."""
    suggested(trial.suggest_float, trial.suggest_categorical)


def start_with(first: Path, telling: Telling) -> None:
    """Start the clock once the first trial's process has made the file `first`."""
    while not first.exists():
        time.sleep(POLL_S)
    telling.start()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--fresh-actors", action="store_true", help="a process a trial")
    options = parser.parse_args()
    work = WORKS[options.work]
    telling = Telling(work)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="fettle-bench-") as folder:
        os.environ |= QUIET
        ray.init(num_cpus=CORES, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        first = Path(folder) / "first"

        def trainable(config: dict[str, Any], split: Any) -> None:
            first.touch()
            seed = options.seed * 10_000 + hash(tune.get_context().get_trial_id()) % 10_000
            accuracy, epochs = trained(work, split, config, seed)
            tune.report({"val_accuracy": accuracy, "epochs": epochs})

        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, split=load(work)), {"cpu": 1}),
            tune_config=tune.TuneConfig(
                metric="val_accuracy",
                mode="max",
                search_alg=OptunaSearch(
                    space,
                    sampler=optuna.samplers.TPESampler(seed=options.seed, constant_liar=True),
                    metric="val_accuracy",
                    mode="max",
                ),
                num_samples=options.trials,
                max_concurrent_trials=CORES,
                reuse_actors=not options.fresh_actors,
            ),
            run_config=tune.RunConfig(storage_path=folder, name="study", verbose=0, callbacks=[Told(telling)]),
        )
        watcher = threading.Thread(target=start_with, args=(first, telling), daemon=True)
        watcher.start()
        tuner.fit()
        telling.finish()
        ray.shutdown()


if __name__ == "__main__":
    main()

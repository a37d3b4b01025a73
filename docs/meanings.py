"""What the code doesn't say in words, for the tables of the docs (see `docs/tables.py`)."""

from __future__ import annotations

from app import errors
from app.domain.trial import FailureReason

MEANINGS = {
    "name": "Unique in the project. Starts with a letter or a digit; then also `.`, `_`, `-`.",
    "description": "Free text.",
    "labels": "Your own keys and values; lists can be filtered by them.",
    "model.family": "Which family is trained, see [families](#families-and-their-hyperparameters).",
    "model.version": "The family's version, which alone trains it; the newest that workers have where left out.",
    "model.input": "What the layers of `keras-layers` take; the data set's own kind where left out.",
    "model.layers": "The layers of `keras-layers`, see [models of your own](own-models.md).",
    "dataset": "Required for families that train on data, refused for `function` and `external`.",
    "dataset.name": "Which data set, see [data sets](#data-sets), or the name or id of [one of your own](data.md).",
    "dataset.id": "The id of one of your own: filled in by the service, so that a study's data never change.",
    "dataset.validation_fraction": "Share of the rows that validation metrics are computed on.",
    "dataset.test_fraction": "Share that is kept apart; the best trial's scores on it are told when the study is over.",
    "dataset.split_seed": "Seed of the split. Splits of classification data are stratified.",
    "dataset.grouped": "True: whole groups of samples (the recordings of one voice) go to one part each. "
    "For data sets that have groups.",
    "hyperparameters": "By name: a value (fixed) or an object with `type` (searched). What is left out has the "
    "family's default.",
    "training.epochs": "Passes over the training part.",
    "training.seed": "Seed of weights, shuffling and dropout; mixed with the trial's number.",
    "training.precision": "What is computed in, by the names of Keras' policies; weights are float32 in all of them: "
    "see [saving compute](saving-compute.md).",
    "training.class_weights": "What each class' samples count in the training loss: `balanced`, or weights by class, "
    "by name or index. Off where left out.",
    "training.deterministic": "The same definition gives the same trials and numbers, at a cost: see "
    "[saving compute](saving-compute.md).",
    "training.select_epoch": "Which epoch is the trial's result: the best by the first objective, or the last. "
    "`function` always selects the last, and so does the sampler `pbt`.",
    "training.early_stopping": "Off where left out.",
    "training.early_stopping.metric": "A metric of the epoch. For `function` the default is `value`.",
    "training.early_stopping.patience": "Epochs without improvement before the trial ends as COMPLETE.",
    "training.early_stopping.min_delta": "An improvement must be larger than this.",
    "training.folds": "Cross-validation: each trial is trained once for each fold that is held out, see "
    "[folds and repeats](folds.md).",
    "training.repeats": "Each trial is trained so often, with other seeds.",
    "objectives": "What is optimised. The first one selects epochs; a single one also guides pruning and sorts trials.",
    "objectives[].metric": "See [metrics](#metrics).",
    "objectives[].direction": "Whether less or more is better. State it for `val_accuracy`.",
    "objectives[].target": "The study completes once a trial reaches it. With one objective only.",
    "constraints": 'A COMPLETE trial that breaks one has `"feasible": false` and is never the best.',
    "constraints[].metric": "See [metrics](#metrics).",
    "constraints[].min": "Lower bound. One of `min` and `max` must be given.",
    "constraints[].max": "Upper bound.",
    "sampler.name": "See [samplers](#samplers).",
    "sampler.options": "The sampler's own.",
    "pruner.name": "See [pruners](#pruners).",
    "pruner.options": "The pruner's own.",
    "budget.trials": "Trial numbers, sampled or enqueued, however they end. Retries don't count.",
    "budget.seconds": "Seconds since the first trial started.",
    "budget.device_seconds": "Seconds of training, summed over all trials.",
    "budget.no_improvement_trials": "Recorded trials in a row that did not become the best. With one objective only.",
    "execution.parallel_trials": "Most trials under way at once, over all workers, sampled ones that wait included;"
    " `auto`: as many as keep the workers busy, of a learning sampler a quarter of `budget.trials` and 64 at most.",
    "execution.device": "`auto` (any), `cpu`, `gpu` (any GPU) or `gpu:N` (that one).",
    "execution.worker_labels": "Only workers that offer all of these labels take the study's trials.",
    "execution.max_attempts": "Attempts of a trial whose worker was lost or whose trainer crashed.",
    "execution.trial_timeout_seconds": "Longest time of one attempt. It then ends as FAIL, `TIMEOUT`.",
    "execution.duplicates": "Equal hyperparameters are trained again (`allow`), get the first trial's result "
    "(`reuse`), or are drawn anew (`resample`), see [search](search.md#duplicates).",
    "execution.artifacts": "Asked for beside a kept model's usual files: `tensorboard`, an event file of its epochs.",
    "execution.keep_models": "`best`: the best trial's model (with several objectives the Pareto front's); "
    "`all`: every complete trial's; `none`.",
    "execution.checkpoints": "`auto`: a trial that trains for long leaves checkpoints, and goes on from the last one"
    " where it loses its worker, see [checkpoints](checkpoints.md); `off`: it starts anew.",
    "execution.priority": "Workers take trials of the higher priority first.",
    "warm_start.studies": "Ids or names of studies with the same objectives, from whose trials the sampler learns, see "
    "[search](search.md#warm-start).",
}
"""What each field of a study definition means, by its path."""

KINDS = {"vector": "vectors; images are flattened", "image": "images", "text": "texts", "audio": "recordings"}
"""What families take, in words."""

OPTION_MEANINGS = {
    "min_early_stopping_rate": "Raises the first rung: `min_resource · reduction_factor ^ rate`.",
    "lower": "Trials below it are pruned. One of `lower` and `upper` must be given.",
    "upper": "Trials above it are pruned.",
    "pruner": "The pruner that is asked: `name` and `options`, at most 3 in one another. Without it: prune.",
}
"""What the options mean that have no description of their own."""

SETTING_MEANINGS = {
    "host": "Address that the API listens on.",
    "port": "Port that the API listens on; 0 takes a free one.",
    "device": "What a worker trains on: `auto`, `cpu`, `gpu` or `gpu:N`.",
    "max_trials": "Largest `budget.trials` of a study.",
    "max_epochs": "Largest `training.epochs` of a study.",
    "max_parallel_trials": "Largest `execution.parallel_trials` of a study.",
}
"""What the settings mean that have no description of their own."""

MORE_CODES: dict[type[errors.FettleError], tuple[tuple[str, str], ...]] = {
    errors.BadRequest: (("BAD_CURSOR", "A cursor or stream id that this list didn't give."),),
    errors.NotFound: (
        ("STUDY_NOT_FOUND", "No study has the id."),
        ("TRIAL_NOT_FOUND", "The study has no trial of the number."),
        ("ARTIFACT_NOT_FOUND", "The trial has no such file, or the file is gone."),
        ("DATASET_NOT_FOUND", "No data set has the id or name."),
        ("WEBHOOK_NOT_FOUND", "No webhook has the id."),
        ("PLOT_NOT_FOUND", "There is no plot of this kind."),
        ("WORKER_NOT_FOUND", "No worker has the id."),
        ("KEY_NOT_FOUND", "No key has the id."),
        ("PROJECT_NOT_FOUND", "No project has the name."),
    ),
}
"""Codes that an error is raised with beside its own."""

OTHER_CODES = (
    (405, "METHOD_NOT_ALLOWED", "The path is served with other methods; `Allow` lists them."),
    (409, "RECIPE_UNAVAILABLE", "A trial without a script that trains it again; the detail says why."),
    (409, "TOO_MANY_WEBHOOKS", "A project has 100 webhooks at most."),
    (500, "INTERNAL", "A bug. The service's log has the traceback."),
)

NEVER_ANSWERED = (errors.Conflict, errors.MigrationRefused, errors.SchemaTooNew)
"""Calls answer with the first one's kinds, commands with the second; the last is answered as its parent."""

REASONS = {
    FailureReason.EXCEPTION: "Training or sampling raised, or the trainer crashed or hung on every attempt. "
    "`error.code`: the exception's name, `SAMPLER_FAILED`, `TRAINER_CRASHED` or `TRAINER_HUNG`.",
    FailureReason.OUT_OF_MEMORY: "The model didn't fit into the memory of its device, or its trainer grew too large on "
    "every attempt (`TRAINER_TOO_LARGE`).",
    FailureReason.NON_FINITE: "A watched metric (`loss`, `val_loss`; `value`) became NaN or infinite.",
    FailureReason.TIMEOUT: "`execution.trial_timeout_seconds` passed (`TRIAL_TIMEOUT`).",
    FailureReason.CANCELLED: "Cancelled by request (`CANCELLED`), or with its study (`STUDY_ENDED`).",
    FailureReason.LOST: "Its workers stopped renewing the lease, on every attempt (`LEASE_EXPIRED`).",
    FailureReason.REFUSED: "Refused before training, in words: the hyperparameters can't be trained.",
}

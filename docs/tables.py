"""Writes the tables of the docs that follow from the code: `python docs/tables.py`; with `--check` only says if stale.

A table stands between `<!-- table: name -->` and `<!-- end: name -->`. What the code doesn't say in words is said here:
a field without a meaning is an error, so that no new one stays undocumented.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app import errors
from app.domain.datasets import BUNDLED
from app.domain.families import FAMILIES, Hyperparameter
from app.domain.layers import LAYERS, Option
from app.domain.layers.table import LAYER_ACTIVATIONS
from app.domain.metrics import reported_metrics
from app.domain.study import StudyDefinition
from app.domain.trial import FailureReason
from app.settings import Settings
from app.tuning.options import Choice
from app.tuning.pruners import pruners
from app.tuning.samplers import samplers

DOCS = Path(__file__).parent
PAGES = tuple(DOCS / f"{name}.md" for name in ("api-guide", "operating", "images-and-audio", "text", "own-models"))
BLOCK = re.compile(r"<!-- table: (?P<name>[\w-]+) -->\n.*?<!-- end: (?P=name) -->", re.DOTALL)

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


def _table(header: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _code(value: object) -> str:
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{value}`"


# -- study definitions and options: from JSON Schema ------------------------------------------------------------------


def _of_reference(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return {**defs[name], **{k: v for k, v in schema.items() if k != "$ref"}} if name else schema


def _alternatives(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    schema = _of_reference(schema, defs)
    return [_of_reference(s, defs) for s in schema["anyOf"]] if "anyOf" in schema else [schema]


def _type_and_limits(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> tuple[str, str]:
    types, limits = [], []
    for one in _alternatives(schema, defs):
        if "enum" in one or "const" in one:
            types += [f"`{value}`" for value in one.get("enum", [one.get("const")])]
        else:
            types.append({"null": "`null`"}.get(one.get("type", ""), one.get("type", "any")))
        limits.append(_limits(one))
    return " or ".join(dict.fromkeys(types)), "; ".join(filter(None, limits))


def _limits(schema: Mapping[str, Any]) -> str:
    found = [
        f"{sign} {_number(schema[key])}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    for least, most, unit in (
        ("minLength", "maxLength", "characters"),
        ("minItems", "maxItems", "items"),
        ("minProperties", "maxProperties", "entries"),
    ):
        if schema.get(least):
            found.append(f"at least {schema[least]} {unit}")
        if most in schema:
            found.append(f"at most {_number(schema[most])} {unit}")
    if "pattern" in schema:
        found.append(f"`{schema['pattern']}`")
    return ", ".join(found)


def _fields(
    schema: Mapping[str, Any], defs: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Path, schema and default in words of each field, those of sections one by one."""
    for name, field in schema["properties"].items():
        path, shown = f"{prefix}{name}", _of_reference(field, defs)
        default = _code(field["default"]) if "default" in field else "required"
        if path == "hyperparameters":
            yield path, {"type": "object", **{k: v for k, v in shown.items() if k == "maxProperties"}}, "`{}`"
            continue
        if shown.get("type") == "array" and "$ref" in shown["items"]:
            yield path, shown, default
            yield from _fields(_of_reference(shown["items"], defs), defs, f"{path}[].")
            continue
        section = next((s for s in _alternatives(field, defs) if "properties" in s), None)
        if section is not None and name != "when":
            if field.get("default", default) is None:
                yield path, field, default
            given = field.get("default") or {}
            for inner, inner_schema, inner_default in _fields(section, defs, f"{path}."):
                key = inner.removeprefix(f"{path}.")
                yield inner, inner_schema, _code(given[key]) if given.get(key) is not None else inner_default
            continue
        yield path, field, default


def definition() -> str:
    """Every field of a study definition."""
    schema = StudyDefinition.model_json_schema()
    rows = []
    for path, field, default in _fields(schema, schema["$defs"]):
        kind, limits = _type_and_limits(field, schema["$defs"])
        rows.append([f"`{path}`", kind, default, limits, MEANINGS[path]])
    stale = set(MEANINGS) - {row[0].strip("`") for row in rows}
    if stale:
        raise KeyError(f"Expected meanings of fields alone. Received: {', '.join(sorted(stale))}")
    return _table(["field", "type", "default", "limits", "meaning"], rows)


def _options(choices: Sequence[Choice]) -> str:
    rows = []
    for choice in choices:
        defs = choice.options.get("$defs", {})
        first = True
        for name, field in choice.options["properties"].items():
            kind, limits = _type_and_limits(field, defs)
            default = _code(field["default"]) if "default" in field else "required"
            label = f"`{choice.name}`" if first else ""
            meaning = OPTION_MEANINGS.get(name) or field["description"]
            rows.append([label, f"`{name}`", kind, default, limits, meaning])
            first = False
        if first:
            rows.append([f"`{choice.name}`", "—", "", "", "", ""])
    return _table(["name", "option", "type", "default", "limits", "meaning"], rows)


def _choices(choices: Sequence[Choice]) -> str:
    rows = [[f"`{c.name}`", c.description, "yes" if c.multi_objective else "no"] for c in choices]
    return _table(["name", "what it does", "several objectives"], rows)


# -- families, data sets, metrics -------------------------------------------------------------------------------------


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 10**10 else f"{value:g}"


def _values(declared: Hyperparameter) -> str:
    if declared.kind == "bool":
        return "`true`, `false`"
    if declared.kind == "categorical":
        return ", ".join(f"`{choice}`" for choice in declared.choices)
    if math.isinf(declared.low) or math.isinf(declared.high):
        return "any"
    return f"{_number(declared.low)} to {_number(declared.high)}"


def _family(name: str) -> Callable[[], str]:
    def table() -> str:
        family = FAMILIES[name]
        declared = [*family.hyperparameters, *([family.pattern] if family.pattern is not None else [])]
        rows = [
            [
                "`x0`, `x1`, …" if h is family.pattern else f"`{h.name}`",
                h.kind,
                _values(h),
                "required" if h.default is None else _code(h.default),
                "structural" if h.structural else "runtime",
                h.description,
            ]
            for h in declared
        ]
        return _table(["name", "kind", "values", "default", "change", "meaning"], rows)

    return table


def families() -> str:
    """The families."""
    rows = [
        [
            f"`{f.name}`",
            f.description,
            " or ".join(f.tasks) if f.needs_dataset else "—",
            "as `model.input` says" if f.from_layers else KINDS.get(f.input_kind, "none"),
        ]
        for f in FAMILIES.values()
    ]
    return _table(["family", "what it is", "task", "data"], rows)


def layers() -> str:
    """The layers that a list may have, and their options."""
    rows = []
    for kind in LAYERS.values():
        options = [f"`{option.name}` {_option(option)}" for option in kind.options]
        rows.append([f"`{kind.name}`", " or ".join(map(str, kind.ranks)) or "any", "; ".join(options) or "—"])
    return _table(["layer", "axes of a sample", "options"], rows)


def _option(option: Option) -> str:
    declared = option.hyperparameter
    if declared is None:
        text = "a layer: LSTM, GRU or SimpleRNN" if option.kind == "layer" else "a list of whole numbers"
    else:
        text = "activation" if declared.choices == LAYER_ACTIVATIONS else _values(declared).replace("`", "")
        text += ", or two of them" if option.kind == "pair" else ""
        text += ", runtime" if option.runtime else ""
    default = "" if option.default is None else f", default {str(option.default).lower()}"
    return f"({text}{default})"


def datasets() -> str:
    """The bundled data sets."""
    rows = [
        [
            f"`{d.name}`",
            d.description,
            d.task,
            " × ".join(map(str, d.shape)) or d.input_kind,
            f"{d.rows:,}",
            str(d.classes or "—"),
        ]
        for d in BUNDLED.values()
    ]
    return _table(["name", "what it is", "task", "shape of a sample", "rows", "classes"], rows)


def metrics() -> str:
    """Which metrics a definition may name, by family and task."""
    cases = (
        (f"{_trained('classification')}; classification", FAMILIES["mlp"], "classification"),
        (f"{_trained('regression')}; regression", FAMILIES["mlp"], "regression"),
        ("`function`", FAMILIES["function"], None),
    )
    rows = []
    for words, family, task in cases:
        reported = reported_metrics(family, task)  # type: ignore[arg-type]
        by_epoch = ", ".join(f"`{m}`" for m in reported.by_epoch)
        rows.append([words, by_epoch, ", ".join(f"`{m}`" for m in reported.with_result) or "—"])
    return _table(["family and task", "of every epoch", "with the result"], rows)


def _trained(task: str) -> str:
    return ", ".join(f"`{f.name}`" for f in FAMILIES.values() if f.needs_dataset and task in f.tasks)


# -- problems, reasons, settings --------------------------------------------------------------------------------------


def _error_types(kind: type[errors.FettleError]) -> Iterator[type[errors.FettleError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _error_types(child)


def problems() -> str:
    """Every code that a problem may carry, by status."""
    rows = list(OTHER_CODES)
    for kind in _error_types(errors.FettleError):
        words = (kind.__doc__ or "").strip().partition("\n")[0]
        if kind in NEVER_ANSWERED:
            continue
        rows.append((kind.status, kind.code, words))
        rows += [(kind.status, code, meaning) for code, meaning in MORE_CODES.get(kind, ())]
    rows.sort(key=lambda row: row[0])
    return _table(["status", "code", "meaning"], [[str(s), f"`{c}`", words] for s, c, words in rows])


def reasons() -> str:
    """Why trials fail."""
    return _table(["reason", "meaning"], [[f"`{r.value}`", REASONS[r]] for r in FailureReason])


def settings() -> str:
    """All settings."""
    schema = Settings.model_json_schema()
    rows = []
    for name, field in Settings.model_fields.items():
        kind, limits = _type_and_limits(schema["properties"][name], schema.get("$defs", {}))
        default = field.default
        shown = "empty" if default == "" else f"`{default}`" if isinstance(default, Path | str) else _code(default)
        meaning = field.description or SETTING_MEANINGS[name]
        rows.append([f"`FETTLE_{name.upper()}`", kind, shown, limits, meaning])
    return _table(["variable", "type", "default", "limits", "meaning"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "definition": definition,
    "families": families,
    "family-mlp": _family("mlp"),
    "family-image-cnn": _family("image-cnn"),
    "layers": layers,
    "family-text-cnn": _family("text-cnn"),
    "family-text-transformer": _family("text-transformer"),
    "family-image-resnet": _family("image-resnet"),
    "family-audio-cnn": _family("audio-cnn"),
    "family-function": _family("function"),
    "datasets": datasets,
    "metrics": metrics,
    "samplers": lambda: _choices(samplers()),
    "sampler-options": lambda: _options(samplers()),
    "pruners": lambda: _choices(pruners()),
    "pruner-options": lambda: _options(pruners()),
    "problems": problems,
    "reasons": reasons,
    "settings": settings,
}


def renewed(text: str) -> str:
    """A page's text with all its tables written anew."""
    return BLOCK.sub(lambda m: f"<!-- table: {m['name']} -->\n{TABLES[m['name']]()}\n<!-- end: {m['name']} -->", text)


def main(arguments: Sequence[str]) -> int:
    """Rewrite the pages; with `--check` change nothing and fail where one is stale."""
    stale = [page for page in PAGES if renewed(page.read_text("utf-8")) != page.read_text("utf-8")]
    for page in stale:
        if "--check" in arguments:
            sys.stderr.write(f"{page.name} is stale: run python docs/tables.py\n")
        else:
            page.write_text(renewed(page.read_text("utf-8")), "utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

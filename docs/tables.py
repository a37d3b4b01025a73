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
from app.store.compatibility import compatible_from
from app.store.migrate import configured
from app.tuning.options import Choice
from app.tuning.pruners import pruners
from app.tuning.samplers import samplers
from docs.meanings import (
    KINDS,
    MEANINGS,
    MORE_CODES,
    NEVER_ANSWERED,
    OPTION_MEANINGS,
    OTHER_CODES,
    REASONS,
    SETTING_MEANINGS,
)

DOCS = Path(__file__).parent
PAGES = tuple(DOCS / f"{name}.md" for name in ("api-guide", "operating", "images-and-audio", "text", "own-models"))
BLOCK = re.compile(r"<!-- table: (?P<name>[\w-]+) -->\n.*?<!-- end: (?P=name) -->", re.DOTALL)


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


def revisions() -> str:
    """What going back from each revision of the schema deletes, and which code may stay on it."""
    rows = []
    with configured() as (_, scripts):
        for script in reversed(list(scripts.walk_revisions())):
            loses = getattr(script.module, "loses", "everything: there is no schema before it")
            rows.append([script.revision, f"{script.doc}", loses, compatible_from(scripts, script.revision)])
    return _table(["revision", "brought", "going back from it deletes", "oldest code that may run on it"], rows)


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
    "revisions": revisions,
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

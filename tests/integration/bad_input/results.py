"""Results that can't be told: unknown plots, methods, metrics, formats, and recipes that aren't there."""

from __future__ import annotations

from typing import Any

from tests.integration.bad_input import DefinitionCase, RequestCase
from tests.integration.bad_input.studies import function, mlp


def refused(what: str, path: str, status: int, code: str, loc: list[Any] | None) -> RequestCase:
    return (what, "GET", f"/v1/studies/{{id}}/{path}", None, {}, status, code, loc)


REQUESTS: list[RequestCase] = [
    refused("an unknown plot", "plots/pie", 404, "PLOT_NOT_FOUND", None),
    refused("a plot in capitals", "plots/HISTORY", 404, "PLOT_NOT_FOUND", None),
    refused("a front of one objective", "plots/pareto", 422, "INVALID_REQUEST", ["path", "kind"]),
    refused("a contour of one axis", "plots/contour", 422, "INVALID_REQUEST", ["path", "kind"]),
    refused("a plot of no objective", "plots/history?metric=f1", 422, "INVALID_REQUEST", ["query", "metric"]),
    refused("two metrics", "plots/edf?metric=value&metric=value", 422, "INVALID_REQUEST", ["query", "metric"]),
    refused("four metrics", "plots/pareto?" + "metric=value&" * 4, 422, "INVALID_REQUEST", ["query", "metric"]),
    refused("a timeline's metric", "plots/timeline?metric=value", 422, "INVALID_REQUEST", ["query", "metric"]),
    refused("an unknown axis", "plots/slice?hyperparameter=x9", 422, "INVALID_REQUEST", ["query", "hyperparameter"]),
    refused(
        "axes of a history", "plots/history?hyperparameter=x0", 422, "INVALID_REQUEST", ["query", "hyperparameter"]
    ),
    refused("a method of a history", "plots/history?method=fanova", 422, "INVALID_REQUEST", ["query", "method"]),
    refused("an unknown method", "plots/importances?method=shap", 422, "INVALID_REQUEST", ["query", "method"]),
    refused("importances by magic", "importances?method=magic", 422, "INVALID_REQUEST", ["query", "method"]),
    refused("importances of nothing", "importances?metric=f1", 422, "INVALID_REQUEST", ["query", "metric"]),
    refused("importances with a limit", "importances?limit=3", 422, "INVALID_REQUEST", ["query", "limit"]),
    refused("an export to Excel", "export?format=xlsx", 422, "INVALID_REQUEST", ["query", "format"]),
    refused("a report in a format", "report?format=pdf", 422, "INVALID_REQUEST", ["query", "format"]),
    refused("no best trial's recipe", "best/recipe.py", 409, "RECIPE_UNAVAILABLE", None),
    refused("a recipe of a function", "best/recipe.py?trial=0", 409, "RECIPE_UNAVAILABLE", None),
    refused("a recipe of no trial", "best/recipe.py?trial=99", 404, "TRIAL_NOT_FOUND", None),
    refused("a recipe of minus one", "best/recipe.py?trial=-1", 422, "INVALID_REQUEST", ["query", "trial"]),
    *(
        (f"{path} of no study", "GET", f"/v1/studies/st_0/{path}", None, {}, 404, "STUDY_NOT_FOUND", None)
        for path in ("importances", "plots/history", "report", "best/recipe.py", "export?format=parquet")
    ),
]

DEFINITIONS: list[DefinitionCase] = [
    ("an unknown artifact", mlp(execution={"artifacts": ["onnx"]}), ["execution", "artifacts", 0]),
    ("artifacts twice", mlp(execution={"artifacts": ["tensorboard"] * 2}), ["execution", "artifacts"]),
    (
        "artifacts without models",
        mlp(execution={"artifacts": ["tensorboard"], "keep_models": "none"}),
        ["execution", "artifacts"],
    ),
    ("artifacts of a function", function(execution={"artifacts": ["tensorboard"]}), ["execution", "artifacts"]),
]

"""What a definition may name: families, samplers, pruners, data sets."""

from __future__ import annotations

import math
from typing import Any

from fastapi import Response

from app.api import schemas
from app.api.answers import answer, page
from app.api.routing import router as make_router
from app.domain.datasets import BUNDLED, Dataset
from app.domain.families import FAMILIES, Family, Hyperparameter
from app.errors import NotFound

router = make_router("catalog")
JSON_TYPES: dict[str, str | list[str]] = {
    "float": "number",
    "int": "integer",
    "categorical": "string",
    "bool": "boolean",
    "any": ["boolean", "number", "string"],
}


@router.get("/v1/families", response_model=schemas.FamilyPage)
async def list_families() -> Response:
    """The model families, with their hyperparameters as JSON Schema."""
    return page([_family_info(family) for family in FAMILIES.values()])


@router.get("/v1/samplers", response_model=schemas.AlgorithmPage)
def list_samplers() -> Response:
    """The samplers, with their options as JSON Schema."""
    from app.tuning.samplers import samplers

    return page([_algorithm_info(choice) for choice in samplers()])


@router.get("/v1/pruners", response_model=schemas.AlgorithmPage)
def list_pruners() -> Response:
    """The pruners, with their options as JSON Schema."""
    from app.tuning.pruners import pruners

    return page([_algorithm_info(choice) for choice in pruners()])


@router.get("/v1/datasets", response_model=schemas.DatasetPage)
async def list_datasets() -> Response:
    """The data sets."""
    return page([_dataset_info(dataset) for dataset in BUNDLED.values()])


@router.get("/v1/datasets/{dataset_id:id}", response_model=schemas.DatasetInfo)
async def get_dataset(dataset_id: str) -> Response:
    """One data set."""
    if dataset_id not in BUNDLED:
        raise NotFound(f"Expected the id of a data set. Received: {dataset_id[:100]!r}", code="DATASET_NOT_FOUND")
    return answer(_dataset_info(BUNDLED[dataset_id]))


def _algorithm_info(choice: Any) -> schemas.AlgorithmInfo:
    return schemas.AlgorithmInfo(
        name=choice.name,
        description=choice.description,
        multi_objective=choice.multi_objective,
        options=choice.options,
    )


def _dataset_info(dataset: Dataset) -> schemas.DatasetInfo:
    return schemas.DatasetInfo(
        name=dataset.name,
        bundled=True,
        description=dataset.description,
        task=dataset.task,
        input_kind=dataset.input_kind,
        shape=list(dataset.shape),
        rows=dataset.rows,
        classes=dataset.classes,
        sample_rate=dataset.sample_rate,
        groups=dataset.groups,
    )


def _family_info(family: Family) -> schemas.FamilyInfo:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {h.name: _schema(h) for h in family.hyperparameters},
        "additionalProperties": False,
    }
    if family.pattern is not None:
        schema["patternProperties"] = {f"^{family.pattern.name}$": _schema(family.pattern)}
    return schemas.FamilyInfo(
        name=family.name,
        version=family.version,
        description=family.description,
        needs_dataset=family.needs_dataset,
        tasks=list(family.tasks),
        input_kind=family.input_kind,
        stackable=family.stackable,
        structural=[h.name for h in family.hyperparameters if h.structural],
        runtime=[h.name for h in family.hyperparameters if not h.structural],
        hyperparameters=schema,
    )


def _schema(declared: Hyperparameter) -> dict[str, Any]:
    """The JSON Schema of a fixed value."""
    schema: dict[str, Any] = {"type": JSON_TYPES[declared.kind], "description": declared.description}
    if declared.default is not None:
        schema["default"] = declared.default
    if declared.choices:
        schema["enum"] = list(declared.choices)
    if math.isfinite(declared.low) and declared.kind in {"int", "float"}:
        schema["minimum"] = declared.low
    if math.isfinite(declared.high) and declared.kind in {"int", "float"}:
        schema["maximum"] = declared.high
    return schema

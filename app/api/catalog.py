"""What a definition may name: families, samplers, pruners."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastapi import Response

from app.api import schemas
from app.api.access import needs
from app.api.answers import page
from app.api.deps import Api
from app.api.routing import router as make_router
from app.domain.access import Scope
from app.domain.families import Family, Hyperparameter
from app.domain.layers import LAYERS, Option
from app.domain.registry import BUILT_IN
from app.store.workers import Offer, known_families, live_offers

router = make_router("catalog")
JSON_TYPES: dict[str, str | list[str]] = {
    "float": "number",
    "int": "integer",
    "categorical": "string",
    "bool": "boolean",
    "any": ["boolean", "number", "string"],
}


@router.get("/v1/families", response_model=schemas.FamilyPage)
@needs(Scope.READ)
def list_families(api: Api) -> Response:
    """The model families with their hyperparameters as JSON Schema: built-in ones, and those of workers' plugins."""
    with api.database.read() as session:
        known, offers = known_families(session), live_offers(session)
    return page([_family_info(family, offers) for family in known])


@router.get("/v1/samplers", response_model=schemas.AlgorithmPage)
@needs(Scope.READ)
def list_samplers() -> Response:
    """The samplers, with their options as JSON Schema."""
    from app.tuning.samplers import samplers

    return page([_algorithm_info(choice) for choice in samplers()])


@router.get("/v1/pruners", response_model=schemas.AlgorithmPage)
@needs(Scope.READ)
def list_pruners() -> Response:
    """The pruners, with their options as JSON Schema."""
    from app.tuning.pruners import pruners

    return page([_algorithm_info(choice) for choice in pruners()])


def _algorithm_info(choice: Any) -> schemas.AlgorithmInfo:
    return schemas.AlgorithmInfo(
        name=choice.name,
        description=choice.description,
        multi_objective=choice.multi_objective,
        options=choice.options,
    )


def _family_info(family: Family, offers: Sequence[Offer]) -> schemas.FamilyInfo:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {h.name: _schema(h) for h in family.hyperparameters},
        "additionalProperties": False,
    }
    if family.pattern is not None:
        schema["patternProperties"] = {f"^{family.pattern.name}$": _schema(family.pattern)}
    if family.from_layers:
        # Whatever else the list of layers names.
        schema["additionalProperties"] = {"type": ["number", "integer", "boolean", "string"]}
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
        built_in=family.name in BUILT_IN,
        workers=sum(offer.trains(family.name, family.version) for offer in offers),
        metrics=[
            schemas.FamilyMetricInfo(name=m.name, direction=m.direction, description=m.description)
            for m in family.metrics
        ],
        layers=_layers() if family.from_layers else None,
    )


def _layers() -> dict[str, Any]:
    """By name the layers that a list may have, each with its options as JSON Schema."""
    return {
        name: {
            "type": "object",
            "properties": {option.name: _option(option) for option in kind.options},
            "required": [o.name for o in kind.options if o.default is None and not o.may_be_left_out],
            "additionalProperties": False,
        }
        for name, kind in LAYERS.items()
    }


def _option(option: Option) -> dict[str, Any]:
    """The JSON Schema of a fixed value of a layer's option, and whether a hyperparameter may take its place."""
    declared = option.hyperparameter
    number = {"type": "integer", "minimum": option.low, "maximum": option.high}
    if declared is None:
        wanted = {"type": "array", "items": number} if option.kind == "sizes" else {"type": "object"}
        return wanted | {"hyperparameter": False}
    schema = _schema(declared)
    del schema["description"]
    if option.kind == "pair":
        schema = {"anyOf": [schema, {"type": "array", "items": number, "minItems": 2, "maxItems": 2}]}
    if option.default is not None:
        schema["default"] = option.default
    return schema | {"hyperparameter": "runtime" if option.runtime else "structural"}


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

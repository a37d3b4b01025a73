"""Families that others write: what a plugin declares, and what of it a worker tells the service.

A plugin is a `FamilyPlugin` behind an entry point of the group `fettle.families`. It says where its code is rather than
holding it, so that it can be read without TensorFlow: the builder is imported by the trainer alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.domain.families.catalogue import OPTIMIZATION, PENALTIES, REGULARIZATION
from app.domain.families.declaration import ACTIVATIONS, Family, FamilyMetric, Hyperparameter, InputKind, Task

ENTRY_POINTS = "fettle.families"
"""The group of entry points that families are found by."""
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
VERSION_CHARACTERS = 32
SHARED = (*PENALTIES, *OPTIMIZATION)
"""What every plugin's family has beside its own hyperparameters."""
TAKEN_METRICS = ("loss", "accuracy", "mae", "value", "learning_rate", "seconds", "parameter_count", "train_seconds",
                 "generalization_gap")  # fmt: skip
"""Metrics that every family reports, or that mean something to the service."""


class InvalidPlugin(Exception):
    """A plugin declares what can't be trained; the message says what."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a plugin's own, made of sums over samples: reported as `name` and `val_name`.

    `per_sample` is the place, `module:function`, of (outputs [n, outputs], targets [n]) → [n] or [n, m] float32, in
    TensorFlow. `finish` is the place of ([k, m] means over all samples) → [k]; the mean itself where left out.
    """

    name: str
    direction: Literal["minimize", "maximize"]
    per_sample: str
    finish: str | None = None
    description: str = ""


@dataclass(frozen=True)
class FamilyPlugin:
    """A model family as a plugin declares it. Another `version` is one whose trials can't be compared with these.

    `builder` is the place, `module:function`, of (hyperparameters, shape, outputs) → `keras.Model` from a prepared
    sample to logits, or to the standardised value. Of the plugin's own `hyperparameters` it gets the structural ones as
    they are; runtime ones are rates for layers of dropout or noise, to be handed on untouched. Instead of a builder
    `blocks` may be the place of one that is written in blocks (see `worker.training.models.layers`).
    What optimises and penalises (`learning_rate`, `l2`, …) is added to every family.
    """

    name: str
    version: str
    description: str
    builder: str | None = None
    blocks: str | None = None
    hyperparameters: tuple[Hyperparameter, ...] = ()
    tasks: tuple[Task, ...] = ("classification", "regression")
    input_kind: InputKind = "vector"
    metrics: tuple[Metric, ...] = ()

    def family(self) -> Family:
        """The declaration that the service validates studies by.

        Raises:
            InvalidPlugin: it can't be trained as it is declared.
        """
        self._check()
        return Family(
            name=self.name,
            version=self.version,
            description=self.description,
            hyperparameters=(*self.hyperparameters, *SHARED),
            tasks=self.tasks,
            input_kind=self.input_kind,
            stack_members=16,
            first_members=8,
            metrics=tuple(FamilyMetric(m.name, m.direction, m.description) for m in self.metrics),
        )

    def _check(self) -> None:
        if not NAME.fullmatch(self.name):
            raise InvalidPlugin(f"Expected a name of small letters, digits and hyphens. Received: {self.name!r}")
        if not 1 <= len(self.version) <= VERSION_CHARACTERS:
            raise InvalidPlugin(
                f"Expected a version of 1 to {VERSION_CHARACTERS} characters. Received: {self.version!r}"
            )
        if (self.builder is None) == (self.blocks is None):
            raise InvalidPlugin("Expected either a builder or blocks. Received: both or neither")
        for place in (self.builder, self.blocks, *(p for m in self.metrics for p in (m.per_sample, m.finish))):
            if place is not None and not PLACE.fullmatch(place):
                raise InvalidPlugin(f"Expected a place as package.module:function. Received: {place!r}")
        if self.input_kind not in {"vector", "image"}:  # what prepares the others has hyperparameters of its own
            raise InvalidPlugin(f"Expected input_kind vector or image. Received: {self.input_kind!r}")
        if not self.tasks or not set(self.tasks) <= {"classification", "regression"}:
            raise InvalidPlugin(f"Expected tasks among classification, regression. Received: {self.tasks!r}")
        self._check_names()

    def _check_names(self) -> None:
        names = [h.name for h in self.hyperparameters]
        for declared in self.hyperparameters:
            self._check_hyperparameter(declared)
            if names.count(declared.name) > 1:
                raise InvalidPlugin(f"Expected hyperparameters that differ. Received {declared.name!r} twice")
        told = [m.name for m in self.metrics]
        for name in told:
            if not IDENTIFIER.fullmatch(name) or name in TAKEN_METRICS or name.startswith(("val_", "test_")):
                raise InvalidPlugin(f"Expected another name for a metric. Received: {name!r}")
            if told.count(name) > 1:
                raise InvalidPlugin(f"Expected metrics that differ. Received {name!r} twice")

    def _check_hyperparameter(self, declared: Hyperparameter) -> None:
        name = declared.name
        if not IDENTIFIER.fullmatch(name) or name in {h.name for h in SHARED}:
            raise InvalidPlugin(f"Expected another name for a hyperparameter. Received: {name!r}")
        if declared.default is None:
            raise InvalidPlugin(f"Expected a default of {name!r}. Received: none")
        problem = declared.problem(declared.default)
        if problem is not None:
            raise InvalidPlugin(f"The default of {name!r}: {problem}")
        if declared.structural:
            return
        if self.blocks is not None:
            read = {h.name: h for h in REGULARIZATION} | {"activation": declared}
            known = name in {"dropout", "activation"} and declared.kind == read[name].kind
            if not known or not set(declared.choices) <= set(ACTIVATIONS):
                raise InvalidPlugin(f"Blocks read dropout and activation alone at run time. Received: {name!r}")
        elif declared.kind != "float":
            raise InvalidPlugin(f"Expected a runtime hyperparameter to be a rate, a float. Received: {name!r}")


def as_json(family: Family) -> dict[str, Any]:
    """A plugin's declaration as it is kept and sent."""
    return {
        "name": family.name,
        "version": family.version,
        "description": family.description,
        "tasks": list(family.tasks),
        "input_kind": family.input_kind,
        "stackable": family.stackable,
        "stack_members": family.stack_members,
        "first_members": family.first_members,
        "metrics": [{"name": m.name, "direction": m.direction, "description": m.description} for m in family.metrics],
        "hyperparameters": [
            {
                "name": h.name,
                "kind": h.kind,
                "default": h.default,
                "description": h.description,
                "low": h.low if math.isfinite(h.low) else None,
                "high": h.high if math.isfinite(h.high) else None,
                "choices": list(h.choices),
                "structural": h.structural,
            }
            for h in family.hyperparameters
        ],
    }


def from_json(declaration: Mapping[str, Any]) -> Family:
    """The family that `as_json` wrote."""
    given = dict(declaration)
    hyperparameters = []
    for each in given.pop("hyperparameters"):
        low, high = each["low"], each["high"]
        bounds = {"low": -math.inf if low is None else low, "high": math.inf if high is None else high}
        hyperparameters.append(Hyperparameter(**(each | bounds | {"choices": tuple(each["choices"])})))
    given["tasks"] = tuple(given["tasks"])
    given["metrics"] = tuple(FamilyMetric(**metric) for metric in given["metrics"])
    return Family(hyperparameters=tuple(hyperparameters), **given)

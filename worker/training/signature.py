"""The structural signature of a stack: what decides which compiled program can train it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.domain.families import ACTIVATIONS, Family, InputKind, Scalar
from app.domain.families.catalogue import OPTIMIZATION, PENALTIES
from app.domain.study import DatasetSpec, ModelSpec
from worker.trainer.protocol import Prepare, TrainStack
from worker.trainer.trainable import Refused
from worker.training.data import WHOLE, Fold, Split, load_split
from worker.training.metrics import OwnMetrics
from worker.training.network import Network
from worker.training.network_registry import Networks

SHARED = tuple(h.name for h in (*PENALTIES, *OPTIMIZATION))
"""Runtime hyperparameters that every program reads itself."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Stacks of equal signatures train in one program.

    `structure` holds the structural hyperparameters, sorted by name; one without effect (`nesterov` of an optimizer
    other than sgd) has its default. `activations` are the candidates that the program computes, in the families' order.
    `layers` is the list of a model that is given layer by layer, JSON text, and `input` what it takes.
    Objectives, epochs, seeds and runtime hyperparameters play no part; of `training` the precision does, and whether
    classes are weighted at all: their weights are the members'. `data` is where an upload's file lies.
    """

    family: str
    version: str
    dataset: DatasetSpec
    structure: tuple[tuple[str, Scalar], ...]
    activations: tuple[str, ...]
    networks: Networks = field(compare=False, repr=False)
    layers: str = ""
    input: InputKind | None = None
    precision: str = "float32"
    weighs_classes: bool = False
    fold: Fold = WHOLE
    data: str | None = field(default=None, compare=False)

    @property
    def declaration(self) -> Family:
        """The family, with the hyperparameters that its layers declare."""
        family = self.networks.family(self.family, self.version, self.layers, self.input)
        if family is None:
            raise Refused(f"Expected a family that trains here. Received: {self.family!r}, version {self.version}")
        return family

    @property
    def own_runtime(self) -> tuple[str, ...]:
        """The runtime hyperparameters of this family alone."""
        return tuple(h.name for h in self.declaration.hyperparameters if not h.structural and h.name not in SHARED)

    @property
    def metrics(self) -> OwnMetrics:
        """The metrics that the family computes itself."""
        return OwnMetrics(self.networks.metrics(self.family), classify=self.split().info.task == "classification")

    def network(self, *, xla: bool) -> Network:
        """The network, in the form that suits the compiler.

        Raises:
            Refused: the data set or the network is impossible.
        """
        return self.networks.network(self, self.split(), xla=xla)

    @property
    def hyperparameters(self) -> dict[str, Scalar]:
        """The structural hyperparameters by name."""
        return dict(self.structure)

    @property
    def input_kind(self) -> InputKind:
        """What the family takes."""
        return self.declaration.input_kind

    def split(self) -> Split:
        """The data, prepared for the family.

        Raises:
            Refused: an unknown data set, or one that the family can't take.
        """
        return load_split(self.dataset, self.input_kind, self.hyperparameters, self.data, self.fold)


def filled(family: Family, hyperparameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """All hyperparameters of `family`, defaults filled in, whole numbers as `int`.

    Raises:
        Refused: a name that the family doesn't have, or a value that it doesn't allow.
    """
    values = family.defaults()
    for name, value in hyperparameters.items():
        declared = family.declared(name)
        if declared is None:
            raise Refused(f"Expected hyperparameters of {family.name}: {', '.join(family.by_name)}. Received: {name!r}")
        problem = declared.problem(value)
        if problem is not None:
            raise Refused(f"{name}: {problem}")
        values[name] = int(value) if declared.kind == "int" else value
    return values


def structural_signature(request: TrainStack | Prepare, networks: Networks) -> Signature:
    """The signature of a stack, or of one to come; `networks` are the families that train here.

    Raises:
        Refused: a family that doesn't train here, no data set, hyperparameters that the family doesn't allow, or
            members that differ in structure.
    """
    if isinstance(request, Prepare):
        members = [request.hyperparameters]
    else:
        members = [member.hyperparameters for member in request.members]
    model = request.model or ModelSpec(family=request.family)
    layers = json.dumps(model.layers) if model.layers else ""
    family = networks.family(model.family, model.version, layers, model.input)
    if family is None or model.family not in networks:
        version = "" if model.version is None else f", version {model.version}"
        raise Refused(f"Expected a family among: {', '.join(networks.names)}. Received: {request.family!r}{version}")
    if request.dataset is None:
        raise Refused(f"Expected a data set for the family {request.family}. Received: none")
    if isinstance(request, TrainStack) and request.data_problem is not None:
        raise Refused(request.data_problem)
    if not members:
        raise Refused("Expected at least one member. Received: none")
    values = [filled(family, hyperparameters) for hyperparameters in members]
    structures = {structure_of(family, each) for each in values}
    if len(structures) > 1:
        differing = [h.name for h in family.hyperparameters if len({dict(s).get(h.name) for s in structures}) > 1]
        raise Refused(f"Expected members of one structure. Received: members that differ in {', '.join(differing)}")
    candidates = {
        *request.choices.get("activation", ()),
        *(each["activation"] for each in values if "activation" in each),
    }
    selects = (activation := family.declared("activation")) is not None and not activation.structural
    return Signature(
        family=family.name,
        version=family.version,
        dataset=request.dataset,
        structure=structures.pop(),
        activations=tuple(name for name in ACTIVATIONS if name in candidates) if selects else (),
        layers=layers,
        input=model.input,
        networks=networks,
        precision=request.training.precision,
        weighs_classes=request.training.class_weights is not None,
        data=request.data,
    )


def structure_of(family: Family, values: Mapping[str, Scalar]) -> tuple[tuple[str, Scalar], ...]:
    """The structural ones of all of a member's hyperparameters, as a signature has them."""
    structure = {h.name: values[h.name] for h in family.hyperparameters if h.structural}
    if structure["optimizer"] != "sgd":
        structure["nesterov"] = False
    return tuple(sorted(structure.items()))

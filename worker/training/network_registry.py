"""How the networks of each family are made here: built-in ones, lists of layers, and those of plugins.

A registry is made when the trainer starts and passed along: signatures carry it, so that whoever holds one can make
its network.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.domain.families import Family, InputKind
from app.domain.families.catalogue import with_layers_of_text
from app.domain.registry import BUILT_IN, Families
from worker.training.data import Split
from worker.training.keras_network import KerasBuilder, KerasNetwork
from worker.training.metrics import OwnMetric
from worker.training.models import BUILDERS, Builder
from worker.training.models.layered import builder_of
from worker.training.network import BlockNetwork, Network

if TYPE_CHECKING:
    from worker.training.signature import Signature

Maker = Callable[["Signature", Split, bool], Network]
"""(signature, data, whether XLA compiles it) → the network."""
KEPT_NETWORKS = 64
"""Keras networks kept: building one takes some 50 ms, and variants of a program share it."""


@dataclass(frozen=True)
class Trainable:
    """How a family trains here: what makes its networks, and the metrics that it computes itself."""

    make: Maker
    metrics: tuple[OwnMetric, ...] = ()


class Networks:
    """The families that this trainer can train."""

    def __init__(self, families: Families, trainables: Mapping[str, Trainable]) -> None:
        self.families = families
        self._trainables = dict(trainables)

    def __contains__(self, family: object) -> bool:
        return family in self._trainables

    @property
    def names(self) -> list[str]:
        """The families' names."""
        return list(self._trainables)

    def family(self, name: str, version: str | None, layers: str, input_kind: InputKind | None) -> Family | None:
        """The declaration of a family, with what its list of layers, JSON text, declares; None where it isn't known."""
        family = self.families.get(name, version)
        if family is None or not family.from_layers:
            return family
        return with_layers_of_text(layers, input_kind)

    def network(self, signature: Signature, split: Split, *, xla: bool) -> Network:
        """The network of a signature.

        Raises:
            Refused: it is impossible for such samples.
        """
        return self._trainables[signature.family].make(signature, split, xla)

    def metrics(self, family: str) -> tuple[OwnMetric, ...]:
        """The metrics that a family computes itself."""
        return self._trainables[family].metrics


def in_blocks(builder: Builder) -> Maker:
    """Networks whose builder is written in blocks."""

    def make(signature: Signature, split: Split, xla: bool) -> Network:
        return BlockNetwork(
            builder,
            shape=split.shape,
            structure=signature.hyperparameters,
            outputs=split.outputs,
            activations=signature.activations,
            xla=xla,
            precision=signature.precision,
        )

    return make


def in_keras(builder_for: Callable[[Signature], KerasBuilder], *, optional: bool = False) -> Maker:
    """Networks that a builder makes as Keras models; runtime hyperparameters of their own are rates of layers.

    `optional` says that not every structure has those layers.
    """
    kept: OrderedDict[Signature, KerasNetwork] = OrderedDict()
    lock = threading.Lock()

    def make(signature: Signature, split: Split, xla: bool) -> Network:  # noqa: ARG001 - the same for both
        with lock:
            if signature not in kept:
                kept[signature] = KerasNetwork(
                    builder_for(signature),
                    shape=split.shape,
                    structure=signature.hyperparameters,
                    outputs=split.outputs,
                    runtime=signature.own_runtime,
                    optional=optional,
                    precision=signature.precision,
                )
                while len(kept) > KEPT_NETWORKS:
                    kept.popitem(last=False)
            kept.move_to_end(signature)
            return kept[signature]

    return make


def built_in() -> dict[str, Trainable]:
    """The built-in families that train here."""
    trainables = {name: Trainable(in_blocks(builder)) for name, builder in BUILDERS.items()}
    listed = in_keras(lambda signature: builder_of(signature.layers), optional=True)
    return trainables | {"keras-layers": Trainable(listed)}


BUILT_IN_NETWORKS = Networks(BUILT_IN, built_in())
"""The built-in families."""

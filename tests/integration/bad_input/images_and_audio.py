"""Studies of images and recordings that can't be run."""

from __future__ import annotations

from typing import Any

from tests.integration.bad_input import DefinitionCase
from tests.integration.bad_input.studies import among, flt, mlp, whole


def resnet(**hyperparameters: Any) -> dict[str, Any]:
    return mlp(model={"family": "image-resnet"}, hyperparameters=hyperparameters)


def audio(dataset: dict[str, Any] | None = None, **hyperparameters: Any) -> dict[str, Any]:
    spec = {"name": "spoken-digits", **(dataset or {})}
    return mlp(model={"family": "audio-cnn"}, dataset=spec, hyperparameters=hyperparameters)


def digits(**dataset: Any) -> dict[str, Any]:
    return mlp(dataset={"name": "digits", **dataset})


DEFINITIONS: list[DefinitionCase] = [
    ("vectors for a ResNet", resnet() | {"dataset": {"name": "wine"}}, ["dataset", "name"]),
    ("recordings for a ResNet", resnet() | {"dataset": {"name": "spoken-digits"}}, ["dataset", "name"]),
    ("images for an audio CNN", audio({"name": "digits"}), ["dataset", "name"]),
    ("recordings for an MLP", mlp(dataset={"name": "spoken-digits"}), ["dataset", "name"]),
    ("no stages", resnet(stages=0), ["hyperparameters", "stages"]),
    ("a stride of 0", resnet(stride=whole(0, 2)), ["hyperparameters", "stride", "low"]),
    ("an unknown head", resnet(head="mean"), ["hyperparameters", "head"]),
    ("an unknown head among choices", resnet(head=among("max", "none")), ["hyperparameters", "head", "choices", 1]),
    ("flips beyond all", resnet(augment_flip=1.5), ["hyperparameters", "augment_flip"]),
    ("shifts beyond the middle", resnet(augment_shift=flt(0.0, 0.6)), ["hyperparameters", "augment_shift", "high"]),
    ("true for a flip", resnet(augment_flip=True), ["hyperparameters", "augment_flip"]),
    ("a mask of an image in time", resnet(augment_time_mask=0.1), ["hyperparameters", "augment_time_mask"]),
    ("a flip of a recording", audio(augment_flip=0.5), ["hyperparameters", "augment_flip"]),
    ("a ResNet beyond this service", resnet(filters=1024, stages=6, blocks=32), ["hyperparameters"]),
    ("a frame of a sample", audio(frame_length=1), ["hyperparameters", "frame_length"]),
    ("a frame longer than a recording", audio(frame_length=6401), ["hyperparameters", "frame_length"]),
    ("some frames longer", audio(frame_length=among(256, 8192)), ["hyperparameters", "frame_length"]),
    ("half a step", audio(frame_step=64.5), ["hyperparameters", "frame_step"]),
    ("no bands", audio(mel_bands=0), ["hyperparameters", "mel_bands"]),
    ("groups of digits", digits(grouped=True), ["dataset", "grouped"]),
    ("text for grouped", digits(grouped="yes"), ["dataset", "grouped"]),
    ("1 for grouped", audio({"grouped": 1}), ["dataset", "grouped"]),
    ("no voice left", audio({"grouped": True, "validation_fraction": 0.95}), ["dataset", "validation_fraction"]),
    (
        "no voice left beside the test",
        audio({"grouped": True, "validation_fraction": 0.5, "test_fraction": 0.45}),
        ["dataset", "validation_fraction"],
    ),
]

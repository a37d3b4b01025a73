"""Which families take which samples."""

from __future__ import annotations

from app.domain.families import InputKind

SAMPLES_OF: dict[InputKind, str] = {
    "vector": "vectors",
    "image": "images",
    "text": "texts",
    "audio": "recordings",
    "none": "nothing",
}
"""What the samples of an input kind are called."""


def takes(family_kind: InputKind, data_kind: InputKind) -> bool:
    """Whether a family of one kind trains on samples of another; images may be flattened to vectors."""
    return family_kind == data_kind or (family_kind == "vector" and data_kind == "image")

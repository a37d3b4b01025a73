"""The family of models that outside programs train: they ask for trials and tell how those went."""

from __future__ import annotations

from app.domain.families.declaration import Family, Hyperparameter

EXTERNAL = Family(
    name="external",
    version="1",
    description="Trained by outside programs, which ask for trials, report and tell over HTTP; any hyperparameters.",
    hyperparameters=(),
    needs_dataset=False,
    input_kind="none",
    stackable=False,
    trained_here=False,
    pattern=Hyperparameter(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}", "any", None, "Whatever the program understands."),
)

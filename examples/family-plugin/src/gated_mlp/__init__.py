"""What the service needs to know of the family: no TensorFlow here."""

from __future__ import annotations

from app.plugins import FamilyPlugin, Metric, choice, flag, float_parameter, int_parameter

PLUGIN = FamilyPlugin(
    name="gated-mlp",
    version="1",
    description="Dense layers, each multiplied by a gate of its own (Dauphin et al., 2017), with a way around.",
    builder="gated_mlp.network:build",
    hyperparameters=(
        int_parameter("blocks", 2, 1, 16, "Gated layers."),
        int_parameter("width", 64, 1, 4096, "Units of each."),
        choice("gate", "sigmoid", ("sigmoid", "gelu", "swish"), "Activation of the gates.", structural=True),
        flag("normalise", "Layer normalisation before each block."),
        # A runtime hyperparameter: another rate needs no other compiled program.
        float_parameter("drop", 0.0, 0.0, 0.9, "Share of units dropped after each block."),
    ),
    tasks=("classification",),
    metrics=(
        Metric("top3", "maximize", "gated_mlp.metrics:among_best_three", description="Class among the best three."),
        Metric(
            "macro_f1",
            "maximize",
            "gated_mlp.metrics:f1_counts",
            finish="gated_mlp.metrics:macro_f1",
            description="F1, the mean over classes.",
        ),
    ),
)
